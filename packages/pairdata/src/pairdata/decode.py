"""Decode image files of all formats to upright 8-bit RGB, or to squares of one size and any number of channels."""

import os

import numpy as np
from PIL import Image

from genviews_core.channels import RGB, map_channels, read_channels
from genviews_core.images import UnreadableImage, read_reduced, read_rgb
from genviews_core.pixel_range import Range
from pairdata.augment import Interpolation

MAX_RESIZED = 2**24
"""Images are resized as a whole up to this many pixels: 4000 x 1 pixels resized to short side 256 would take 0.8 GB."""


def resize_and_center_crop(
    image: Image.Image, size: int, resize: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Resize the short side to `resize`, then crop the central size x size pixels, padding smaller images with black.

    The result equals torchvision's. If the whole resized image would have more than MAX_RESIZED pixels, only the
    cropped region is resized, with the same sampling positions.

    Args:
        image: RGB image, or one channel.
        size: size of the square crop, pixels.
        resize: short side before the crop, pixels.
        resampling: Pillow's filter, with antialiasing.
    """
    width, height = image.size
    wide, tall = resized(width, height, resize)
    left, top = round((wide - size) / 2), round((tall - size) / 2)
    if wide * tall <= MAX_RESIZED:
        if image.size != (wide, tall):
            image = image.resize((wide, tall), resampling)
        return image.crop((left, top, left + size, top + size))
    first = max(left, 0), max(top, 0)
    last = min(left + size, wide), min(top + size, tall)
    across, down = width / wide, height / tall
    box = (first[0] * across, first[1] * down, last[0] * across, last[1] * down)
    part = image.resize((last[0] - first[0], last[1] - first[1]), resampling, box=box)
    return part.crop((left - first[0], top - first[1], left - first[0] + size, top - first[1] + size))


def resized(width: int, height: int, short: int) -> tuple[int, int]:
    """Return width and height with the short side resized to `short`, rounded as in torchvision's Resize."""
    shorter = min(width, height)
    return int(short * width / shorter), int(short * height / shorter)


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
    fit: str = "resize",
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    value_range: Range | None = None,
    channels: int = 3,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image file to one square of pixels.

    Args:
        source: a path, or the bytes of a file.
        size: size of the square, pixels.
        fit: "resize" resizes the whole image to the square (bicubic; a JPEG may be decoded at reduced size first);
            "center" resizes the short side to `resize` and crops the center, as torchvision's Resize and CenterCrop.
        resize: the short side for "center"; `size` when None.
        interpolation: interpolation of "center".
        value_range: see `decode_rgb`; for other than three channels also low and high of each.
        channels: C: three for RGB, or the number of channels of the file (see `genviews_core.channels`).

    Returns:
        The pixels, uint8 [size, size, C], and (height, width) of the upright original.

    Raises:
        UnreadableImage: see `decode_rgb`.
    """
    if channels != RGB:
        pixels = read_channels(source, channels, value_range=value_range)

        def square_of(band: Image.Image) -> Image.Image:
            if fit == "resize":
                return band.resize((size, size), Image.Resampling.BICUBIC)
            return resize_and_center_crop(band, size, resize or size, RESAMPLING[interpolation])

        unchanged = fit == "resize" and pixels.shape[:2] == (size, size)
        return pixels if unchanged else map_channels(pixels, square_of), (pixels.shape[0], pixels.shape[1])
    if fit == "resize":
        image, original = read_reduced(source, 2 * size, value_range=value_range)
        square = image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(square), original
    image = read_rgb(source, value_range=value_range)
    square = resize_and_center_crop(image, size, resize or size, RESAMPLING[interpolation])
    return np.asarray(square), (image.height, image.width)
