"""Read pickles of numbers, strings, lists, dictionaries and numeric arrays without executing code."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np


def read_pickle(path: str | Path) -> Any:
    """Load a pickle of plain data.

    Unpickling can execute code. Here only replacements of the functions that rebuild numpy arrays can be called, which
    accept nothing but numbers; numpy's own functions are not called.

    Raises:
        ValueError: it refers to anything else, or is invalid.
    """
    try:
        with Path(path).open("rb") as file:
            return _SafeUnpickler(file, encoding="latin1").load()
    except _Refused as refused:
        raise ValueError(f"cannot read {path} safely: {refused}") from None
    except Exception as error:  # broken pickles raise arbitrary exceptions
        raise ValueError(f"cannot read the pickle {path} ({type(error).__name__}: {error})") from None


class _Refused(Exception):
    """Raised for objects that are not allowed."""


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if allowed is None:
            raise _Refused(f"expected only lists, dictionaries, numbers and arrays, got {module}.{name}")
        return allowed


class _Type:
    """Replacement of numpy.dtype."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[<>|=]?[biuf][1248]", str(code)):
            raise _Refused(f"expected only arrays of numbers, got one of type {code}")
        self.type = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.type = self.type.newbyteorder(state[1]) if state[1] in "<>" else self.type


class _Array:
    """Replacement of numpy.ndarray; `values` is the array."""

    values: np.ndarray = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        self.values = _array(content, kind, shape, "F" if fortran else "C").values


def _array(content: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    built = _Array()
    built.values = np.frombuffer(content, kind.type).reshape(shape, order="F" if order == "F" else "C")
    return built


def _scalar(kind: _Type, content: bytes | str) -> float:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.type)[0].item()


_KNOWN = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
}


def as_list(value: Any) -> list:
    """Convert a list or an array from `read_pickle` to a list.

    Raises:
        TypeError: the value is neither.
    """
    return value.values.tolist() if isinstance(value, _Array) else list(value)
