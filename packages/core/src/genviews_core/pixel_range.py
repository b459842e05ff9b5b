"""Pixels of more than 8 bits as 8 bits, without losing the levels that an image uses.

A microscope's 12-bit image in a 16-bit file holds values up to some thousands: by the file's 16 bits it would keep some
16 levels. So values are scaled by the range that the image itself uses:

    integers that need all 16 bits      0 to 65535, as photographs in 16 bits are meant
    integers up to 255                  0 to 255, an 8-bit image in a larger file
    other integers                      their smallest to their largest value, and at least 256 levels apart, so that
                                        noise of a few levels in an empty image stays faint
    floats from 0 to 1, or from 0 to 255    these; other floats: smallest to largest

Images of one data set are then not all scaled alike: give one range where brightness tells something.

Shapes: H x W pixels, C channels, of which the fourth is alpha.
"""

import mmap
import sys
import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image

Range = tuple[float | int, float | int]
"""The values that become 0 and 255."""
_FULL = 65535.0
_ROWS = 256
_DEEP = ("RGB", "RGBA", "RGBX", "LA")  # of the kinds of 16 bits a channel that Pillow knows, all but CMYK and RGBa
_reported = mmap.mmap(-1, 1)
"""Shared with worker processes that are forked, so that a run says it once."""


class PixelRangeWarning(UserWarning):
    """Pixels of more than 8 bits were scaled to 8 bits; said once a run."""


def scale_to_8_bits(
    values: Shaped[np.ndarray, "H W *C"],
    name: str,
    value_range: Range | None = None,
    transparent: int | tuple[int, ...] | None = None,
) -> Image.Image:
    """Scale deep pixels to an 8-bit image of mode L, RGB or RGBA, or LA where a value is transparent.

    Args:
        values: of any number type; a fourth channel is alpha, 0 to 65535.
        name: of the image, for the warning.
        value_range: what becomes 0 and 255; the image's own range where None.
        transparent: the value (or color) that stands for transparent pixels.

    Raises:
        ValueError: a range that is none, or no finite value.
    """
    color = values[..., :3] if values.ndim == 3 else values
    low, high = own_range(color) if value_range is None else value_range
    if not low < high:
        raise ValueError(f"expected a range of values that rises, got {low:g} to {high:g}")
    _report(name, low, high, own=value_range is None)
    levels = _levels(color, low, high)
    alpha = None
    if values.shape[2:] == (4,):
        alpha = _levels(values[..., 3], 0.0, _FULL)
    elif transparent is not None:
        shown = values != np.asarray(transparent)
        alpha = (shown.any(-1) if values.ndim == 3 else shown).astype(np.uint8) * np.uint8(255)
    image = Image.fromarray(levels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image


def own_range(values: Shaped[np.ndarray, "H W *C"]) -> Range:
    """Return the range that an image's values are scaled by, see above.

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
    """Decode an opened 16-bit RGB, RGBA or gray and alpha image whole; None where it is another kind.

    Pillow keeps the high bytes of such pixels alone. They are decoded twice, as if of the one byte order and of the
    other, which gives both bytes.

    Args:
        image: opened and not decoded.
        reopen: opens it again.
    """
    rawmode, order = _raw_mode(image)
    kind, _, bits = rawmode.partition(";")
    if kind not in _DEEP or bits not in ("16B", "16L", "16N"):
        return None
    if kind == "LA":  # which Pillow reads in one byte order only: here as the four bytes that it is
        gray_high, gray_low, alpha_high, alpha_low = np.moveaxis(_read_as(image, "RGBA").astype(np.uint16), -1, 0)
        gray, alpha = gray_high << 8 | gray_low, alpha_high << 8 | alpha_low
        return np.stack([gray, gray, gray, alpha], -1)
    first = _read_as(image, f"{kind};16B")  # the first byte of two
    with reopen() as again:
        second = _read_as(again, f"{kind};16L")
    high, low = (first, second) if order == "big" else (second, first)
    return high.astype(np.uint16) << 8 | low


def _raw_mode(image: Image.Image) -> tuple[str, str]:
    """How the file's pixels are laid out, and in which byte order."""
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
    """Some rows at a time, so that a large image costs no second one in doubles."""
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = np.nan_to_num(values[start : start + _ROWS].astype(np.float64), nan=low)
        levels[start : start + _ROWS] = ((rows - low) * (255 / (high - low))).round().clip(0, 255)
    return levels


def _report(name: str, low: float, high: float, *, own: bool) -> None:
    if _reported[0]:
        return
    _reported[0] = 1
    whose = "its own range" if own else "the range given"
    advice = "; give value_range to scale all images alike" if own else ""
    warnings.warn(
        f"{name!r} has pixels of more than 8 bits: {low:g} to {high:g}, {whose}, became 0 to 255{advice} "
        "(said once a run)",
        PixelRangeWarning,
        stacklevel=2,
    )
