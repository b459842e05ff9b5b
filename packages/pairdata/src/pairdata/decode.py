"""Image files of every kind as 8-bit RGB, turned the right way up."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

_ORIENTATION = 0x0112  # the EXIF tag
# What undoes each EXIF orientation: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, table 6
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A file that cannot be turned into an RGB image; the message names it and says why."""


def decode_rgb(source: str | Path | bytes) -> Image.Image:
    """Decode an image file to RGB.

    EXIF orientation is applied; transparent pixels are laid over white; 16-bit grey is scaled to 8 bits; palette,
    grey, 1-bit and CMYK are converted; of an animation the first frame is taken.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        UnreadableImage: missing, broken, of no known format, or so large that it looks like a decompression bomb.
    """
    return _decode(source, None)[0]


def decode_square(
    source: str | Path | bytes, size: int, *, fit: str = "squash", resize: int | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image file to one square of pixels.

    Args:
        source: a path, or the bytes of a file.
        size: the side of the square, pixels.
        fit: "squash" resizes the whole image to the square; "center" resizes the short side to `resize` and cuts
            the centre, as torchvision's Resize and CenterCrop do.
        resize: the short side for "center"; `size` when None.

    Returns:
        The pixels, uint8 [size, size, 3], and (height, width) of the upright original.

    Raises:
        UnreadableImage: see `decode_rgb`.
    """
    resize = resize or size
    image, (height, width) = _decode(source, max(size, resize))
    if fit == "squash":
        square = image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
    else:
        square = _center(image, (height, width), size, resize)
    return np.asarray(square), (height, width)


def _center(image: Image.Image, original: tuple[int, int], size: int, resize: int) -> Image.Image:
    height, width = original
    short = min(height, width)
    height, width = int(resize * height / short), int(resize * width / short)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _decode(source: str | Path | bytes, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """An upright RGB image and its original (height, width); at least twice `side` when reduced on decoding."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            if side is not None and image.format == "JPEG":
                image.draft(None, (2 * side, 2 * side))  # a JPEG decoder halves for free
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except Exception as error:  # on a broken file a decoder may raise anything
        name = "image in memory" if isinstance(source, bytes) else str(source)
        raise UnreadableImage(f"{name}: {_reason(error)}") from error
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return rgb, (width, height) if orientation >= 5 else (height, width)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(error).strip() or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data are broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # many good photographs carry damaged EXIF
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of PIL's as RGB (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes)."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no fixed range; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # 16-bit grey, in Pillow's several guises
        return _from_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("32-bit integer pixels have no fixed range; save it with 8 or 16 bits per channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
