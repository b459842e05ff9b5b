"""Decode the squares of records with FFCV's JPEG decoder, without the rest of FFCV, or copy raw squares.

Only the compiled part of the ffcv package is loaded: importing the package takes seconds, and its own pipelines are
compiled for each loader; here nothing is compiled at run time.
"""

import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pairdata.ffcv_format import Mode

Decode = Callable[[int, int, int], bool]
"""(address, length, address of the S x S x 3 output) to whether decoding succeeded; thread-safe."""

NEEDED = (
    "records of JPEG squares need FFCV, which is not installed; pip install ffcv (it builds with pkg-config and the "
    "headers of OpenCV and TurboJPEG), or pack them with --mode raw"
)


def open_decoder(mode: Mode, size: int) -> Decode:
    """Return a function that decodes squares of size x size pixels.

    Raises:
        ValueError: FFCV is not installed, or cannot be loaded.
    """
    return _open_jpeg(size) if mode == "jpeg" else _open_raw(size)


def _open_raw(size: int) -> Decode:
    expected = 3 * size**2

    def copy(source: int, length: int, square: int) -> bool:
        if length == expected:
            ctypes.memmove(square, source, length)
        return length == expected

    return copy


def _open_jpeg(size: int) -> Decode:
    imdecode = _ffcv().imdecode

    def decode(source: int, length: int, square: int) -> bool:
        return imdecode(source, length, size, size, square, size, size, 0, 0, 1, 1, False, False) == 0

    return decode


@cache
def _ffcv() -> ctypes.CDLL:
    """Load the compiled part of FFCV; its functions run without the GIL."""
    package = importlib.util.find_spec("ffcv")
    folders = package.submodule_search_locations if package else None
    files = [file for folder in folders or () for file in Path(folder).glob("_libffcv*.so")]
    try:
        library = ctypes.CDLL(str(files[0]))
    except (IndexError, OSError) as error:
        raise ValueError(NEEDED) from error
    # ffcv/libffcv.py: source, its length, source height and width, destination, crop height and width, offsets,
    # scale, whether to crop, whether to flip
    number, pointer = ctypes.c_uint32, ctypes.c_void_p
    library.imdecode.argtypes = [pointer, ctypes.c_uint64, number, number, pointer, *[number] * 6, *[ctypes.c_bool] * 2]
    return library
