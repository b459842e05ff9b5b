"""Flax checkpoints without JAX: msgpack with arrays as extension types, read as plain tensors.

Nothing in such a file is executed, and whatever is not an array of numbers in nested dictionaries is refused.
The format: https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html
"""

import math
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

ARRAY, SCALAR = 1, 3  # flax's extension codes; 2 is a complex number, which no network here has
DTYPES = {b"float32": torch.float32, b"float16": torch.float16, b"bfloat16": torch.bfloat16, b"float64": torch.float64}
CHUNKED = "__msgpack_chunked_array__"  # arrays over 1 GiB are cut into flat pieces


def read_flax(path: Path) -> dict[str, Tensor]:
    """All arrays of a flax file by their path, for example ``params/encoder/Conv_0/kernel``.

    Raises:
        ValueError: if the file is cut short, is of another kind, or holds something else than arrays.
    """
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False)
        return dict(_leaves(_joined(tree), ""))
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a whole flax checkpoint ({why}): download it again") from error


def _extension(code: int, data: bytes) -> Tensor:
    if code not in (ARRAY, SCALAR):
        raise ValueError(f"it holds the extension type {code}, which is not an array")
    shape, name, buffer = msgpack.unpackb(data, raw=True)
    if name not in DTYPES:
        raise ValueError(f"it holds an array of type {name!r}, not of floats")
    dtype = DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(buffer) or any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {tuple(shape)} has {len(buffer)} bytes")
    return torch.frombuffer(bytearray(buffer), dtype=dtype).view(shape) if buffer else torch.empty(shape, dtype=dtype)


def _joined(tree: Any) -> Any:
    """The tree with its chunked arrays put together."""
    if not isinstance(tree, dict):
        return tree
    if CHUNKED not in tree:
        return {name: _joined(value) for name, value in tree.items()}
    shape, chunks = tree["shape"], tree["chunks"]
    pieces = [chunks[str(index)] for index in range(len(chunks))]
    return torch.cat(pieces).view([shape[str(axis)] for axis in range(len(shape))])


def _leaves(tree: Any, path: str) -> Any:
    """(path, tensor) of every leaf."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}/{name}" if path else str(name))
    else:
        raise ValueError(f"{path or 'its root'} is {type(tree).__name__}, not an array")
