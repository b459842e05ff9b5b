"""Value range, mean and standard deviation of each channel of a folder of images, from a sample.

Shapes: C channels, N sampled pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from genviews_core.channels import ranges_of, read_stored
from genviews_core.images import UnreadableImage
from genviews_core.pixel_range import Range
from pairdata.index import ImageIndex, index_images

IMAGES = 256
"""Images in the sample, evenly spaced over the sorted keys."""
PIXELS = 4096
"""Pixels of each image, evenly spaced."""
PERCENTILES = (0.1, 99.9)
"""The values mapped to 0 and 255: outliers such as hot pixels are ignored."""
FLAT = 1e-3
"""Channels of a smaller standard deviation are not scaled."""


@dataclass(frozen=True, kw_only=True)
class ChannelStatistics:
    """Statistics of each channel.

    Attributes:
        value_range: low, high, low, high, ... of the values mapped to 0 and 255; None if all images have 8 bits.
        mean: mean of values in [0, 1].
        std: standard deviation of values in [0, 1]; 1 for constant channels.
    """

    value_range: tuple[float, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def channel_statistics(
    root: str | Path, channels: int, *, images: int = IMAGES, value_range: Range | None = None
) -> ChannelStatistics:
    """Measure the channels of a folder of images; equal folders give equal statistics.

    Args:
        root: the folder.
        channels: C.
        images: number of images in the sample; unreadable ones are skipped.
        value_range: the values mapped to 0 and 255, as for `FolderLoader`; None for those of the sample.

    Raises:
        ValueError: no image of the sample can be read; the message gives the reason for one.
    """
    index = index_images(root)
    samples = _sample(index, channels, min(images, len(index)))
    deep = [values for values in samples if values.dtype != np.uint8]
    pairs = ranges_of(value_range, channels)
    if pairs is None and deep:
        pairs = _percentile_ranges(deep)
    scaled = np.concatenate([_scale(values, pairs) for values in samples])
    mean, std = np.nanmean(scaled, 0), np.nanstd(scaled, 0)
    return ChannelStatistics(
        value_range=tuple(value for pair in pairs for value in pair) if pairs else None,
        mean=tuple(round(float(value), 6) for value in mean),
        std=tuple(round(float(value), 6) if value > FLAT else 1.0 for value in std),
    )


def _sample(index: ImageIndex, channels: int, count: int) -> list[Shaped[np.ndarray, "N C"]]:
    """Return pixels of some images, as they are stored."""
    samples, failure = [], ""
    for number in range(count):
        try:
            pixels = read_stored(index.path(number * len(index) // count), channels).reshape(-1, channels)
        except UnreadableImage as error:
            failure = failure or str(error)
            continue
        samples.append(pixels[:: max(1, len(pixels) // PIXELS)].copy())
    if not samples:
        raise ValueError(f"expected images of {channels} channels in {index.root}, got none ({failure})")
    return samples


def _percentile_ranges(samples: list[Shaped[np.ndarray, "N C"]]) -> list[tuple[float, float]]:
    """Return the range of each channel, at least 256 levels of integers."""
    integers = all(values.dtype.kind in "iu" for values in samples)
    ranges = []
    for column in np.concatenate([values.astype(np.float64) for values in samples]).T:
        finite = column[np.isfinite(column)]
        if not finite.size:
            raise ValueError("expected finite pixels in each channel, got none in the sample; leave the channel out")
        low, high = (float(value) for value in np.percentile(finite, PERCENTILES))
        ranges.append((low, max(high, low + 255) if integers else high if high > low else low + 1))
    return ranges


def _scale(values: Shaped[np.ndarray, "N C"], pairs: list[tuple[float, float]] | None) -> Float[np.ndarray, "N C"]:
    """Return values in [0, 1]."""
    if values.dtype == np.uint8 or pairs is None:
        return values / 255.0
    low, high = np.array(pairs).T
    return ((values - low) / (high - low)).clip(0, 1)
