"""The one reading of an image file: any common kind as 8-bit RGB, upright, and never anything that runs a program.

Shapes: H, W are the image's height and width in pixels.
"""

import io
import os
import stat
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from genviews_core import tiff
from genviews_core.pixel_range import Range, read_deep_color, scale_to_8_bits

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is opened, whatever a file's name: Pillow's others include EPS, which starts Ghostscript."""
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Names under which images of these formats are looked for, in lower case."""
MAX_PIXELS = 178_956_970
"""Where Pillow refuses by default: 0.7 GB as Pillow holds it."""

Result = TypeVar("Result")
Source = str | os.PathLike[str] | bytes
"""A path, or the bytes of a file."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an EXIF orientation: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, table 6."""


class UnreadableImage(ValueError):
    """An image that cannot be read; one line that names it.

    Attributes:
        reason: the same without the file's name.
    """

    reason: str = ""


class ImageTooLarge(UnreadableImage):
    """An image of more than MAX_PIXELS pixels; a baseline JPEG can still be read at a fraction of its size."""


def read_rgb(source: Source, *, upright: bool = True, value_range: Range | None = None) -> Image.Image:
    """Read an image as 8-bit RGB.

    Transparent parts lie over white; palettes, gray, 1-bit and CMYK are converted; of an animation the first frame is
    taken. Pixels of more than 8 bits are scaled as `pixel_range` says, with a PixelRangeWarning once a run.

    Args:
        source: a path, or the bytes of a file.
        upright: turn the image as its EXIF says; the official evaluation scripts do not.
        value_range: what becomes 0 and 255 in images of more than 8 bits; their own range where None.

    Raises:
        UnreadableImage: missing, broken, not a regular file, of no format in FORMATS, of more than MAX_PIXELS pixels,
            or of 2 or more than 4 channels.
    """
    return _guarded(source, lambda: _decode(source, None, upright, value_range)[0])


def read_reduced(source: Source, side: int, *, value_range: Range | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Read an upright image for use at about `side` pixels: as `read_rgb`, but a JPEG may come at a fraction.

    A JPEG decoder halves sides for little; both sides stay at least `side`. So a baseline JPEG of more than MAX_PIXELS
    pixels is read, too.

    Args:
        source: a path, or the bytes of a file.
        side: what both sides keep at least, where they have it, pixels.
        value_range: see `read_rgb`.

    Returns:
        The image, and (height, width) of the upright original.

    Raises:
        UnreadableImage: see `read_rgb`.
    """
    return _guarded(source, lambda: _decode(source, side, True, value_range))


def read_image(path: str | os.PathLike[str], size: int | None = None) -> UInt8[Tensor, "3 H W"]:
    """Read an upright image as a tensor, see `read_rgb`.

    Args:
        path: the file.
        size: if given, cut the largest central square and resize it (bicubic, antialiased) to size x size pixels; a
            JPEG of more than MAX_PIXELS pixels is then read, too.

    Raises:
        UnreadableImage: see `read_rgb`.
    """
    try:
        rgb = read_rgb(path)
    except ImageTooLarge:
        if size is None:
            raise
        rgb, _ = read_reduced(path, size)
    if size is not None and rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def read_label_map(source: Source) -> Image.Image:
    """Read a mask whose pixel values are numbers of classes or objects, as they are stored: of mode L or P.

    Raises:
        UnreadableImage: see `read_rgb`, or its pixels are not one channel of 8 bits.
    """

    def read() -> Image.Image:
        with _open(source, reducible=False) as image:
            _refuse_odd(image)
            if image.mode not in ("L", "P"):
                raise ValueError(
                    f"expected one channel of 8 bits, numbers and not their colors, got pixels of mode {image.mode}"
                )
            image.load()
            return image

    return _guarded(source, read)


def image_size(source: Source) -> tuple[int, int]:
    """Width and height as stored, from the file's head; nothing is decoded.

    Raises:
        UnreadableImage: see `read_rgb`; more than MAX_PIXELS pixels in a JPEG are no reason.
    """

    def read() -> tuple[int, int]:
        with _open(source, reducible=True) as image:
            return image.size

    return _guarded(source, read)


def _decode(source: Source, side: int | None, upright: bool, value_range: Range | None):
    """The RGB image, and (height, width) of the upright original."""
    with _open(source, reducible=side is not None) as image:
        width, height = image.size
        if side is not None and isinstance(image, JpegImageFile):
            progressive_and_large = "progressive" in image.info and width * height > MAX_PIXELS
            if not progressive_and_large:  # all of its coefficients would be held
                image.draft(None, (side, side))
        _refuse_odd(image)
        rgb = _to_rgb(image, source, value_range)
        turn = _turn(image) if upright else None
    if turn is None:
        return rgb, (height, width)
    turned = rgb.transpose(_TURNS[turn])
    return turned, (width, height) if turn >= 5 else (height, width)


def _open(source: Source, *, reducible: bool) -> Image.Image:
    """The opened, not yet decoded image; a JPEG whatever its size where it is `reducible`."""
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116 (str is quicker)
        raise ValueError("expected a regular file, got a folder, pipe, socket or device")
    try:
        return Image.open(_file(source), formats=FORMATS)
    except UnidentifiedImageError:
        if tiff.is_tiff(source):
            raise ValueError(tiff.UNKNOWN_KIND) from None
        raise
    except Image.DecompressionBombError:
        if reducible:
            try:
                return JpegImageFile(_file(source))  # Pillow checks the size in Image.open alone
            except SyntaxError:
                pass
        raise ImageTooLarge(_too_large()) from None


def _file(source: Source) -> str | os.PathLike[str] | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _too_large() -> str:
    return f"it has more than {MAX_PIXELS} pixels: scale it down first"


def _refuse_odd(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageTooLarge(_too_large())
    if image.format == "TIFF":
        tiff.refuse_odd(image)


def _to_rgb(image: Image.Image, source: Source, value_range: Range | None) -> Image.Image:
    """Decode and convert (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes)."""
    name = _name(source)
    if (deep := read_deep_color(image, lambda: _open(source, reducible=False))) is not None:
        image = scale_to_8_bits(deep, name, value_range, image.info.get("transparency"))
    else:
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            transparent = image.info.get("transparency")
            image = scale_to_8_bits(np.asarray(image), name, value_range, transparent)
    if image.mode == "La":  # which Pillow converts to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn(image: Image.Image) -> int | None:
    """The EXIF orientation that is to be undone; None where there is none, or the EXIF is broken.

    Asked after decoding: Pillow turns TIFF files by itself then, and takes the orientation away.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # many good photographs carry a damaged EXIF
        return None
    return orientation if orientation in _TURNS else None


def _guarded(source: Source, read: Callable[[], Result]) -> Result:
    """Call `read`; whatever it raises becomes one line that names the file."""
    try:
        return read()
    except Exception as error:  # on a broken file Pillow's decoders raise many unrelated types
        kind = ImageTooLarge if isinstance(error, ImageTooLarge | Image.DecompressionBombError) else UnreadableImage
        unreadable = kind(f"cannot read the image {_name(source)!r}: {_reason(error)}")
        unreadable.reason = _reason(error)
        raise unreadable from error


def _name(source: Source) -> str:
    return "in memory" if isinstance(source, bytes) else os.fspath(source)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return "no such file" if isinstance(error, FileNotFoundError) else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
