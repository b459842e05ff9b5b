"""Decode the pixels of TIFF files with any number of channels, at full depth.

Pillow reads TIFFs of at most four 8-bit or three 16-bit channels; tifffile (the extra `tiff`) reads the others. It only
parses the file's structure here: metadata is not interpreted, and no other file is opened. Compressions are
allow-listed, and sizes are checked before memory is allocated.

Shapes: H x W pixels, C channels.
"""

from __future__ import annotations

import io
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Shaped

MAX_CHANNELS = 256
MAX_BYTES = 2**31
"""Limit of the decoded pixels, twice what Pillow's limit allows for RGBA."""
COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
"""TIFF's numbers of the lossless compressions that are decoded."""
NEEDED = "reading and writing TIFFs of these channels needs tifffile; run pip install tifffile imagecodecs"
_DEFLATE = (8, 32946)
_INFLATED = 1032  # Deflate's largest ratio
_COMPRESSED = 4096  # more than the largest ratio of any of the compressions
_UNCHECKED = 2**26  # what cannot become larger is not checked
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_ORIENTATION = 274


def check_channels(channels: int) -> None:
    """Check a number of channels.

    Raises:
        ValueError: it is not between 1 and MAX_CHANNELS.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"expected 1 to {MAX_CHANNELS} channels, got {channels}; give the number in the files")


def read_tiff(
    source: str | os.PathLike[str] | bytes, channels: int, *, upright: bool = True, max_pixels: int
) -> Shaped[np.ndarray, "H W C"]:
    """Read the channels of a TIFF: the samples of its only page, or the gray pages of a stack.

    Pages that are reduced versions or masks of others are skipped.

    Args:
        source: a path, or the bytes of a file.
        channels: the number of channels that the file must have.
        upright: apply the orientation.
        max_pixels: limit of H x W.

    Raises:
        ValueError: tifffile is not installed, or the file has another number of channels, is too large, or of a kind
            that is not supported.
    """
    import_tifffile()
    from tifffile import TiffFile

    file = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    with TiffFile(file, _multifile=False) as tiff:
        pages = _full_pages(tiff)
        first = _chosen(pages, channels)
        for page in pages:
            _check(page, channels, max_pixels)
        pixels = np.concatenate([_decode(page) for page in pages], -1)
        orientation = first.tags.valueof(_ORIENTATION, 1) if upright else 1
    return _turn(pixels, int(orientation))


def count_channels(source: str | os.PathLike[str] | bytes) -> int:
    """Return the number of channels of a TIFF, without decoding it.

    Raises:
        ValueError: tifffile is not installed, or the file is damaged.
    """
    import_tifffile()
    from tifffile import TiffFile

    with TiffFile(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source), _multifile=False) as tiff:
        return sum(page.samplesperpixel for page in _full_pages(tiff))


def _full_pages(tiff: Any) -> list[Any]:
    """Return the pages that are no reduced versions or masks of others."""
    every: Iterator[Any] = islice(tiff.pages, 4 * MAX_CHANNELS)
    return [page for page in every if not int(page.subfiletype) & (_REDUCED | _MASK)]


def _chosen(pages: Sequence[Any], channels: int) -> Any:
    """Return the first page; check that the pages have this many channels in all."""
    if not pages:
        raise ValueError("expected an image, got a TIFF without one")
    first, count = pages[0], len(pages)
    samples = first.samplesperpixel
    if count > 1 and (samples > 1 or any((page.shape, page.dtype) != (first.shape, first.dtype) for page in pages)):
        raise ValueError(f"expected one image, got {count} pages of {samples} channels; save one image a file")
    if count * samples != channels:
        pages_too = f" (gray pages), a stack or {count} channels" if count > 1 else ""
        raise ValueError(
            f"expected {channels} channels, got {count * samples}{pages_too}; give --channels {count * samples} "
            "(channels= in Python), or other files"
        )
    return first


def _check(page: Any, channels: int, max_pixels: int) -> None:
    """Check what a page claims, before any memory is allocated."""
    if page.compression not in COMPRESSIONS:
        kinds = ", ".join(dict.fromkeys(COMPRESSIONS.values()))
        raise ValueError(f"expected a compression of {kinds}, got TIFF's number {int(page.compression)}; save it again")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ValueError(f"expected pixels of integers or real numbers, got {page.dtype}; convert them")
    if page.ndim != page.axes.count("Y") + page.axes.count("X") + page.axes.count("S"):
        raise ValueError(f"expected one image, got pixels with axes {page.axes}; save one image a file")
    if page.imagewidth * page.imagelength > max_pixels:
        raise ValueError(f"it has more than {max_pixels} pixels; cut it into tiles")
    needed = page.imagewidth * page.imagelength * channels * page.dtype.itemsize
    if needed > MAX_BYTES:
        raise ValueError(
            f"its pixels take {needed / 2**30:.1f} GiB, the limit is {MAX_BYTES / 2**30:g}; cut it into tiles"
        )
    if needed > max(_UNCHECKED, _COMPRESSED * page.parent.filehandle.size):
        raise ValueError(f"the file is too short for {page.imagewidth} x {page.imagelength} pixels; it is damaged")
    strip = page.imagewidth * min(page.rowsperstrip, page.imagelength)
    segment = page.tilewidth * page.tilelength if page.is_tiled else strip
    if segment > 4 * max_pixels:
        raise ValueError("its tiles are larger than any image may be; save it again")
    if page.compression in _DEFLATE:
        _check_inflated(page, segment * page.samplesperpixel * page.dtype.itemsize)


def _check_inflated(page: Any, expected: int) -> None:
    """Reject segments that inflate to more than `expected` bytes: zlib alone would allocate whatever they claim."""
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if count * _INFLATED <= max(_UNCHECKED, 2 * expected):
            continue
        file.seek(offset)
        inflater, data, size = zlib.decompressobj(), file.read(count), 0
        while data and not inflater.eof:
            size += len(inflater.decompress(data, _UNCHECKED))
            data = inflater.unconsumed_tail
            if size > 2 * expected:
                raise ValueError("its compressed pixels are far larger than the image; the file is damaged")


def _decode(page: Any) -> Shaped[np.ndarray, "H W samples"]:
    axes, pixels = page.axes, page.asarray(maxworkers=1)
    if "S" not in axes:
        pixels = pixels[..., None]
    elif axes.index("S") == 0:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels.astype(np.uint8) * np.uint8(255) if pixels.dtype == bool else pixels


def _turn(pixels: Shaped[np.ndarray, "H W C"], orientation: int) -> Shaped[np.ndarray, "h w C"]:
    """Undo a TIFF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def encode_tiff(pixels: Shaped[np.ndarray, "H W C"]) -> bytes:
    """Encode channels as a TIFF with interleaved channels, compressed without loss; equal pixels give equal bytes.

    Raises:
        ValueError: tifffile is not installed.
    """
    import_tifffile()
    from tifffile import imwrite

    buffer, channels = io.BytesIO(), pixels.shape[-1]
    kind: dict[str, Any] = {"photometric": "minisblack"}
    if channels == 3:
        kind = {"photometric": "rgb"}
    elif channels > 1:
        kind |= {"planarconfig": "contig", "extrasamples": ["unspecified"] * (channels - 1)}
    values = pixels if channels > 1 else pixels[..., 0]
    imwrite(buffer, values, compression="zlib", software="", metadata=None, **kind)
    return buffer.getvalue()


def import_tifffile() -> None:
    """Check that tifffile is installed.

    Raises:
        ValueError: it is not; the message says how to install it.
    """
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise ValueError(NEEDED) from error
    if not tifffile.logger().handlers:  # Python would print its records of damaged tags
        tifffile.logger().addHandler(logging.NullHandler())
