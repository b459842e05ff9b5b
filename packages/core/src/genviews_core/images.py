"""Read image files of any common format as 8-bit RGB in upright orientation, without decoders that run programs.

Shapes: H, W are the image's height and width in pixels.
"""

import io
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from genviews_core import tiff
from genviews_core.pixel_range import Range, read_deep_color, scale_to_8_bits

if TYPE_CHECKING:
    import torch

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are opened, whatever the file's name: Pillow's others include EPS, which runs Ghostscript."""
SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Lowercase file name suffixes of images in these formats."""
MAX_PIXELS = 178_956_970
"""Pillow's default limit, 0.7 GB in memory."""

Result = TypeVar("Result")
Source = str | os.PathLike[str] | bytes
"""A path, or the bytes of a file."""
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes an EXIF orientation: https://www.cipa.jp/std/documents/e/DC-008-2012_E.pdf, table 6."""


class UnreadableImage(ValueError):
    """Raised if an image cannot be read; the message is one line that names it.

    Attributes:
        reason: the message without the file's name.
    """

    reason: str = ""


class ImageTooLarge(UnreadableImage):
    """Raised for images of more than MAX_PIXELS pixels; a baseline JPEG can still be read at reduced size."""


def read_rgb(source: Source, *, upright: bool = True, value_range: Range | None = None) -> Image.Image:
    """Read an image as 8-bit RGB.

    Transparent images are composited over white; palette, gray, 1-bit and CMYK images are converted; animations give
    their first frame. Pixels of more than 8 bits are scaled as described in `pixel_range`, with one PixelRangeWarning
    per run.

    Args:
        source: a path, or the bytes of a file.
        upright: apply the EXIF orientation; the official evaluation scripts do not.
        value_range: the values mapped to 0 and 255 in images of more than 8 bits; None for the image's own range.

    Raises:
        UnreadableImage: the file is missing, broken, not a regular file, not of a format in FORMATS, or has more than
            MAX_PIXELS pixels, 2 channels (other than gray and alpha) or more than 4 channels.
    """
    return guarded(source, lambda: _decode(source, None, upright, value_range)[0])


def read_reduced(source: Source, side: int, *, value_range: Range | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Read an upright image for use at about `side` pixels: like `read_rgb`, but a JPEG may be decoded at reduced size.

    A JPEG decoder can halve the sides at low cost; both stay at least `side`. A baseline JPEG of more than MAX_PIXELS
    pixels can therefore be read as well.

    Args:
        source: a path, or the bytes of a file.
        side: lower bound of the reduced height and width, pixels; smaller images are not reduced.
        value_range: see `read_rgb`.

    Returns:
        The image, and (height, width) of the upright original.

    Raises:
        UnreadableImage: see `read_rgb`.
    """
    return guarded(source, lambda: _decode(source, side, True, value_range))


def read_image(source: Source, size: int | None = None) -> "torch.Tensor":
    """Read an upright image as a uint8 tensor of shape [3, H, W]; see `read_rgb`.

    Args:
        source: a path, or the bytes of a file.
        size: if given, crop the largest central square and resize it (bicubic, antialiased) to size x size pixels; a
            baseline JPEG of more than MAX_PIXELS pixels can then be read as well.

    Raises:
        UnreadableImage: see `read_rgb`.
    """
    try:
        rgb = read_rgb(source)
    except ImageTooLarge:
        if size is None:
            raise
        rgb, _ = read_reduced(source, size)
    if size is not None and rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    import torch

    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def read_label_map(source: Source) -> Image.Image:
    """Read a mask of class or object indices with its stored pixel values, in mode L or P.

    Raises:
        UnreadableImage: see `read_rgb`, or the mask does not have one channel of 8 bits.
    """

    def read() -> Image.Image:
        with open_image(source, reducible=False) as image:
            _check_supported(image)
            if image.mode not in ("L", "P"):
                raise ValueError(
                    f"expected one channel of 8 bits, numbers and not their colors, got pixels of mode {image.mode}"
                )
            image.load()
            return image

    return guarded(source, read)


def image_size(source: Source) -> tuple[int, int]:
    """Return the stored width and height from the file's header, without decoding.

    Raises:
        UnreadableImage: see `read_rgb`, except that a JPEG may have more than MAX_PIXELS pixels.
    """

    def read() -> tuple[int, int]:
        with open_image(source, reducible=True) as image:
            return image.size

    return guarded(source, read)


def _decode(source: Source, side: int | None, upright: bool, value_range: Range | None):
    """Return the RGB image, and (height, width) of the upright original."""
    with open_image(source, reducible=side is not None) as image:
        width, height = image.size
        if side is not None and isinstance(image, JpegImageFile):
            progressive_and_large = "progressive" in image.info and width * height > MAX_PIXELS
            if not progressive_and_large:  # all its coefficients would be kept in memory
                image.draft(None, (side, side))
        _check_supported(image)
        rgb = _to_rgb(image, source, value_range)
        orientation = _exif_orientation(image) if upright else None
    if orientation is None:
        return rgb, (height, width)
    transposed = rgb.transpose(_TRANSPOSES[orientation])
    return transposed, (width, height) if orientation >= 5 else (height, width)


def open_image(source: Source, *, reducible: bool = False) -> Image.Image:
    """Open an image without decoding it; if `reducible`, a JPEG of any size is accepted.

    Raises:
        OSError: it is missing, or not of a format in FORMATS.
        ValueError: it is not a regular file, or too large.
    """
    check_regular(source)
    try:
        return Image.open(_file(source), formats=FORMATS)
    except UnidentifiedImageError:
        if tiff.is_tiff(source):
            raise ValueError(tiff.UNKNOWN_KIND) from None
        raise
    except Image.DecompressionBombError:
        if reducible:
            try:
                return JpegImageFile(_file(source))  # Pillow checks the size only in Image.open
            except SyntaxError:
                pass
        raise ImageTooLarge(_too_large()) from None


def check_regular(source: Source) -> None:
    """Check that a path is a regular file: reading a pipe would block.

    Raises:
        OSError: it is missing.
        ValueError: it is a folder, pipe, socket or device.
    """
    if not isinstance(source, bytes) and not stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116 (str is quicker)
        raise ValueError("expected a regular file, got a folder, pipe, socket or device")


def _file(source: Source) -> str | os.PathLike[str] | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _too_large() -> str:
    return f"it has more than {MAX_PIXELS} pixels; scale it down first"


def _check_supported(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageTooLarge(_too_large())
    if image.format == "TIFF":
        tiff.check_supported(image)


def _to_rgb(image: Image.Image, source: Source, value_range: Range | None) -> Image.Image:
    """Decode and convert (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes)."""
    name = source_name(source)
    if (deep := read_deep_color(image, lambda: open_image(source, reducible=False))) is not None:
        image = scale_to_8_bits(deep, name, value_range, image.info.get("transparency"))
    else:
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            transparent = image.info.get("transparency")
            image = scale_to_8_bits(np.asarray(image), name, value_range, transparent)
    if image.mode == "La":  # Pillow converts it only to LA
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _exif_orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation to undo, or None if there is none or the EXIF data is broken.

    Call it after decoding, when Pillow has transposed TIFF files itself and removed their orientation.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # many intact photographs have damaged EXIF data
        return None
    return orientation if orientation in _TRANSPOSES else None


def guarded(source: Source, read: Callable[[], Result]) -> Result:
    """Call `read`; turn any exception into an UnreadableImage whose one-line message names the file."""
    try:
        return read()
    except Exception as error:  # Pillow's decoders raise many unrelated types for broken files
        # Not a local variable, which would keep all frames of the traceback alive until the garbage is collected.
        raise _unreadable(source, error) from error


def _unreadable(source: Source, error: Exception) -> UnreadableImage:
    kind = ImageTooLarge if isinstance(error, ImageTooLarge | Image.DecompressionBombError) else UnreadableImage
    unreadable = kind(f"cannot read the image {source_name(source)!r}: {_reason(error)}")
    unreadable.reason = _reason(error)
    return unreadable


def source_name(source: Source) -> str:
    """Return the path, or "in memory"."""
    return "in memory" if isinstance(source, bytes) else os.fspath(source)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return "no such file" if isinstance(error, FileNotFoundError) else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
