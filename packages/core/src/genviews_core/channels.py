"""Read images of any number of channels as 8-bit arrays.

Three channels are RGB as `images.read_rgb` reads it, whatever the file; one channel is its gray. Any other number must
be the number of channels of the file: multi-band TIFFs of 8 to 64 bits, or files of other formats whose channels Pillow
knows (four of RGBA and CMYK, two of gray and alpha).

Shapes: H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from genviews_core import tiff
from genviews_core.images import (
    MAX_PIXELS,
    Source,
    UnreadableImage,
    check_regular,
    guarded,
    open_image,
    read_image,
    read_rgb,
    source_name,
)
from genviews_core.multiband import check_channels, count_channels, read_tiff
from genviews_core.pixel_range import Range, read_deep_color, scale_each_channel

if TYPE_CHECKING:
    import torch

RGB = 3


def ranges_of(value_range: Range | None, channels: int) -> list[tuple[float, float]] | None:
    """Return (low, high) of each channel.

    Args:
        value_range: low and high of all channels, or low, high, low, high, ... of each channel; None for none.
        channels: C.

    Raises:
        ValueError: it has another number of values, or a range is empty.
    """
    if value_range is None:
        return None
    values = [float(value) for value in value_range]
    counts = {2} if channels == RGB else {2, 2 * channels}
    if len(values) not in counts:
        what = "LOW and HIGH" if counts == {2} else f"LOW and HIGH of all or of each of {channels} channels"
        raise ValueError(f"expected --value-range {what}, got {len(values)} numbers; give 0 4095")
    pairs = list(zip(values[::2], values[1::2], strict=True))
    for low, high in pairs:
        if not low < high:
            raise ValueError(f"expected --value-range LOW HIGH with LOW below HIGH, got {low:g} {high:g}; give 0 4095")
    return pairs * (channels if len(pairs) == 1 else 1)


def read_channels(
    source: Source, channels: int, *, upright: bool = True, value_range: Range | None = None
) -> UInt8[np.ndarray, "H W C"]:
    """Read an image with this number of channels, 8 bits each.

    Args:
        source: a path, or the bytes of a file.
        channels: C.
        upright: apply the EXIF or TIFF orientation.
        value_range: the values mapped to 0 and 255 in images of more than 8 bits: low and high of all channels, or of
            each; None for the range of each channel of the image (see `pixel_range`).

    Raises:
        UnreadableImage: see `genviews_core.images.read_rgb`; or the file has another number of channels, or tifffile is
            not installed.
        ValueError: the number of channels is out of range, or the ranges are not of these channels.
    """
    check_channels(channels)
    ranges = ranges_of(value_range, channels)
    if channels in (1, RGB):
        image = read_rgb(source, upright=upright, value_range=ranges[0] if ranges else None)
        return np.asarray(image) if channels == RGB else np.asarray(image.convert("L"))[..., None]

    def read() -> UInt8[np.ndarray, "H W C"]:
        pixels = _stored(source, channels, upright)
        return pixels if pixels.dtype == np.uint8 else scale_each_channel(pixels, source_name(source), ranges)

    return guarded(source, read)


def read_tensor(
    source: Source, channels: int, size: int | None = None, *, value_range: Range | None = None
) -> "torch.Tensor":
    """Read an upright image as a uint8 tensor of shape [C, H, W]; `images.read_image` for any number of channels.

    Args:
        source: a path, or the bytes of a file.
        channels: C.
        size: if given, crop the largest central square and resize it (bicubic, antialiased) to size x size pixels.
        value_range: see `read_channels`; not used for three channels.

    Raises:
        UnreadableImage: see `read_channels`.
        ValueError: see `read_channels`.
    """
    if channels == RGB:
        return read_image(source, size)
    pixels = read_channels(source, channels, value_range=value_range)
    if size is not None and pixels.shape[:2] != (size, size):
        pixels = map_channels(pixels, lambda band: ImageOps.fit(band, (size, size), Image.Resampling.BICUBIC))
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()


def read_preview(source: Source, size: int | None = None) -> "torch.Tensor":
    """Read an image to look at as a uint8 tensor of shape [3, H, W].

    TIFFs that `images.read_image` rejects because of their channels show the first three of them as red, green and
    blue, or the first as gray, each by its range in the image.

    Args:
        source: a path, or the bytes of a file.
        size: see `read_tensor`.

    Raises:
        UnreadableImage: see `images.read_image`.
    """
    try:
        return read_image(source, size)
    except UnreadableImage as error:
        try:
            channels = guarded(source, lambda: _count(source))
            pixels = read_tensor(source, channels, size)
        except ValueError:
            raise error from None
        return pixels[:RGB] if channels >= RGB else pixels[:1].expand(RGB, -1, -1)


def _count(source: Source) -> int:
    check_regular(source)
    return count_channels(source)


def read_stored(source: Source, channels: int) -> Shaped[np.ndarray, "H W C"]:
    """Read the stored values of an image, for statistics; those of 8 bits are as `read_channels` returns them.

    Raises:
        UnreadableImage: see `read_channels`.
        ValueError: the number of channels is out of range.
    """
    check_channels(channels)

    def read() -> Shaped[np.ndarray, "H W C"] | None:
        if channels not in (1, RGB):
            return _stored(source, channels, True)
        with open_image(source) as image:
            deep = read_deep_color(image, lambda: open_image(source))
            if deep is None and (image.mode == "F" or image.mode.startswith("I")):
                deep = np.asarray(image)[..., None]
        if deep is None:
            return None
        color = deep[..., :RGB]
        if channels == 1:
            return color.mean(-1, keepdims=True)
        return color if color.shape[-1] == RGB else np.repeat(color, RGB, -1)

    deep_color = guarded(source, read)
    return read_channels(source, channels) if deep_color is None else deep_color


def _stored(source: Source, channels: int, upright: bool) -> Shaped[np.ndarray, "H W C"]:
    """Return the stored values of a file of this number of channels, other than one and three."""
    check_regular(source)
    if tiff.is_tiff(source):
        return read_tiff(source, channels, upright=upright, max_pixels=MAX_PIXELS)
    with open_image(source) as image:
        gray_and_alpha = image.mode == "LA"
        pixels = read_deep_color(image, lambda: open_image(source))
        if pixels is None:
            pixels = np.asarray(image)
        elif gray_and_alpha:  # gray, gray, gray, alpha
            pixels = pixels[..., 2:]
    found = pixels.shape[2] if pixels.ndim == 3 else 1
    if found != channels:
        raise ValueError(
            f"expected {channels} channels, got {found}; give --channels {found} (channels= in Python), or other files"
        )
    return pixels


def map_channels(
    pixels: UInt8[np.ndarray, "H W C"], change: Callable[[Image.Image], Image.Image]
) -> UInt8[np.ndarray, "h w C"]:
    """Apply a change of size to each channel, as Pillow applies it to the channels of RGB."""
    bands: Sequence[np.ndarray] = [
        np.asarray(change(Image.fromarray(np.ascontiguousarray(pixels[..., band])))) for band in range(pixels.shape[2])
    ]
    return np.stack(bands, -1)
