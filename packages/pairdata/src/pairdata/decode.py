"""Decode image files of all kinds to upright 8-bit RGB, or to squares of one size."""

import os

import numpy as np
from PIL import Image

from genviews_core.images import UnreadableImage, read_reduced, read_rgb
from genviews_core.pixel_range import Range
from pairdata.augment import Interpolation
from pairdata.center_crop import resize_and_center_crop

__all__ = ["UnreadableImage", "decode_rgb", "decode_square"]

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_rgb(source: str | os.PathLike[str] | bytes, *, value_range: Range | None = None) -> Image.Image:
    """Decode an image file to RGB.

    EXIF orientation is applied; transparency is composited over white; palette, gray, 1-bit and CMYK are converted;
    animations give their first frame; pixels of more than 8 bits are scaled by the image's own range or a given one
    (genviews_core.pixel_range).

    Args:
        source: a path, or the bytes of a file.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.

    Raises:
        UnreadableImage: the file is missing, broken, of an unsupported format or number of channels, or so large that
            it looks like a decompression bomb.
    """
    return read_rgb(source, value_range=value_range)


def decode_square(
    source: str | os.PathLike[str] | bytes,
    size: int,
    *,
    fit: str = "squash",
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    value_range: Range | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image file to one square of pixels.

    Args:
        source: a path, or the bytes of a file.
        size: the side of the square, pixels.
        fit: "squash" resizes the whole image to the square (bicubic; a JPEG may be decoded at reduced size first);
            "center" resizes the short side to `resize` and crops the center, as torchvision's Resize and CenterCrop.
        resize: the short side for "center"; `size` when None.
        interpolation: how "center" resizes.
        value_range: see `decode_rgb`.

    Returns:
        The pixels, uint8 [size, size, 3], and (height, width) of the upright original.

    Raises:
        UnreadableImage: see `decode_rgb`.
    """
    if fit == "squash":
        image, original = read_reduced(source, 2 * size, value_range=value_range)
        square = image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(square), original
    image = read_rgb(source, value_range=value_range)
    square = resize_and_center_crop(image, size, resize or size, RESAMPLING[interpolation])
    return np.asarray(square), (image.height, image.width)
