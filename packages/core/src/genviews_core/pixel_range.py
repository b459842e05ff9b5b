"""Convert pixels of more than 8 bits to 8 bits without losing the levels that an image uses.

A 12-bit microscope image in a 16-bit file has values up to 4095: scaled by the 16-bit range it would keep only 16
levels. Values are therefore scaled by the range that the image itself uses:

    integers that need all 16 bits      0 to 65535, as in 16-bit photographs
    integers up to 255                  0 to 255, an 8-bit image in a larger type
    other integers                      minimum to maximum, but at least 256 levels, so that noise of a few levels in an
                                        empty image is not amplified
    floats from 0 to 1, or from 0 to 255    that range; other floats: minimum to maximum

Different images of a data set may then be scaled differently: give one range if absolute brightness matters.

Shapes: H x W pixels, C channels, of which the fourth is alpha.
"""

import mmap
import sys
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image

Range = tuple[float | int, ...]
"""The values that are mapped to 0 and 255: low and high of all channels, or low, high, low, high, ... of each."""
_FULL = 65535.0
_ROWS = 256
_DEEP = ("RGB", "RGBA", "RGBX", "LA")  # all 16-bit modes of Pillow except CMYK and RGBa
_reported = mmap.mmap(-1, 1)
"""Shared with forked worker processes, so that a run warns once."""


class PixelRangeWarning(UserWarning):
    """Pixels of more than 8 bits were scaled to 8 bits; issued once per run."""


def scale_to_8_bits(
    values: Shaped[np.ndarray, "H W *C"],
    name: str,
    value_range: Range | None = None,
    transparent: int | tuple[int, ...] | None = None,
) -> Image.Image:
    """Scale pixels of more than 8 bits to an 8-bit image of mode L, RGB or RGBA, or LA if one value is transparent.

    Args:
        values: pixels of any numeric dtype; a fourth channel is alpha, 0 to 65535.
        name: name of the image, for the warning.
        value_range: the values mapped to 0 and 255; None for the image's own range.
        transparent: the value (or color) that marks transparent pixels.

    Raises:
        ValueError: the range is empty, or no value is finite.
    """
    color = values[..., :3] if values.ndim == 3 else values
    low, high = own_range(color) if value_range is None else value_range[:2]
    if not low < high:
        raise ValueError(f"expected an increasing range of values, got {low:g} to {high:g}")
    _report(name, low, high, own=value_range is None)
    levels = _levels(color, low, high)
    alpha = None
    if values.shape[2:] == (4,):
        alpha = _levels(values[..., 3], 0.0, _FULL)
    elif transparent is not None:
        opaque = values != np.asarray(transparent)
        alpha = (opaque.any(-1) if values.ndim == 3 else opaque).astype(np.uint8) * np.uint8(255)
    image = Image.fromarray(levels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def scale_each_channel(
    values: Shaped[np.ndarray, "H W C"], name: str, ranges: Sequence[tuple[float, float]] | None = None
) -> UInt8[np.ndarray, "H W C"]:
    """Scale pixels of more than 8 bits to 8 bits, each channel by a range of its own.

    Args:
        values: pixels of any numeric dtype.
        name: name of the image, for the warning.
        ranges: the values mapped to 0 and 255 in each channel; None for the channel's own range in this image.

    Raises:
        ValueError: no value of a channel is finite.
    """
    used = [own_range(values[..., band]) for band in range(values.shape[2])] if ranges is None else ranges
    if ranges is None:
        _report(name, min(low for low, _ in used), max(high for _, high in used), own=True)
    return np.stack([_levels(values[..., band], *pair) for band, pair in enumerate(used)], -1)


def own_range(values: Shaped[np.ndarray, "H W *C"]) -> Range:
    """Return the range by which an image's values are scaled; see the module docstring.

    Raises:
        ValueError: no value is finite.
    """
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        if not finite.size:
            raise ValueError("expected finite pixels, got none: all are NaN or infinite")
        low, high = float(finite.min()), float(finite.max())
        if low >= 0 and high <= 255:
            return (0.0, 1.0) if high <= 1 else (0.0, 255.0)
        return low, high if high > low else low + 1
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 255:
        return 0.0, 255.0
    if low >= 0 and _FULL / 2 < high <= _FULL:
        return 0.0, _FULL
    return float(low), float(max(high, low + 255))


def read_deep_color(image: Image.Image, reopen: Callable[[], Image.Image]) -> UInt16[np.ndarray, "H W C"] | None:
    """Decode an opened 16-bit RGB, RGBA or gray and alpha image at full depth; return None for other kinds.

    Pillow keeps only the high bytes of such pixels. They are decoded twice, once in each byte order, which gives both
    bytes.

    Args:
        image: the image, opened and not decoded.
        reopen: opens the image again.
    """
    rawmode, order = _raw_mode(image)
    kind, _, bits = rawmode.partition(";")
    if kind not in _DEEP or bits not in ("16B", "16L", "16N"):
        return None
    if kind == "LA":  # Pillow reads it in one byte order only: read it as four bytes instead
        gray_high, gray_low, alpha_high, alpha_low = np.moveaxis(_read_as(image, "RGBA").astype(np.uint16), -1, 0)
        gray, alpha = gray_high << 8 | gray_low, alpha_high << 8 | alpha_low
        return np.stack([gray, gray, gray, alpha], -1)
    first = _read_as(image, f"{kind};16B")  # the first byte of two
    with reopen() as again:
        second = _read_as(again, f"{kind};16L")
    high, low = (first, second) if order == "big" else (second, first)
    return high.astype(np.uint16) << 8 | low


def _raw_mode(image: Image.Image) -> tuple[str, str]:
    """Return Pillow's raw mode of the file's pixels and their byte order."""
    tiles = getattr(image, "tile", None) or [None]
    args = getattr(tiles[0], "args", None)
    rawmode = args[0] if isinstance(args, tuple) and args else args
    rawmode = rawmode if isinstance(rawmode, str) else ""
    return rawmode, {"B": "big", "L": "little"}.get(rawmode[-1:], sys.byteorder)


def _read_as(image: Image.Image, rawmode: str) -> UInt8[np.ndarray, "H W C"]:
    tiles = []
    for tile in image.tile:  # pyright: ignore[reportAttributeAccessIssue]
        args = (rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode
        tiles.append(tile._replace(args=args))
    image.tile = tiles  # pyright: ignore[reportAttributeAccessIssue]
    image.load()
    return np.asarray(image)


def _levels(values: Shaped[np.ndarray, "H W *C"], low: float, high: float) -> UInt8[np.ndarray, "H W *C"]:
    """Scale to 0..255 some rows at a time, so that a large image is not copied as float64 as a whole."""
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = np.nan_to_num(values[start : start + _ROWS].astype(np.float64), nan=low)
        levels[start : start + _ROWS] = ((rows - low) * (255 / (high - low))).round().clip(0, 255)
    return levels


def _report(name: str, low: float, high: float, *, own: bool) -> None:
    if _reported[0]:
        return
    _reported[0] = 1
    source = "its own range" if own else "the given range"
    advice = "; give value_range to scale all images alike" if own else ""
    warnings.warn(
        f"{name!r} has pixels of more than 8 bits: {low:g} to {high:g}, {source}, became 0 to 255{advice} "
        "(warned once per run)",
        PixelRangeWarning,
        stacklevel=2,
    )
