"""Read the tensors of a weights file in one of three formats, without executing code.

Formats: flax msgpack (official MaskGIT; https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html),
read without JAX; PyTorch (MAGE); safetensors (written by viewgen).
"""

import argparse
import json
import math
import pickle
from pathlib import Path
from typing import Any

import msgpack
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genviews_core.tensor_files import save_tensors

State = dict[str, Tensor]
SOURCE = "https://storage.googleapis.com/maskgit-public/checkpoints"
ABOUT = "viewgen.maskgit"  # the entry of our own files' metadata


def read_weights(path: Path) -> tuple[State, dict]:
    """Read the tensors by the names in the file, and the metadata of files written by ``save``.

    Raises:
        ValueError: if the file is missing or broken, or would execute code.
    """
    if not path.is_file():
        raise ValueError(
            f"expected a weights file, got {path}, which does not exist; download one, for example from {SOURCE}"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    with path.open("rb") as stream:
        start = stream.read(2)
    # A zip archive or a pickle; a msgpack dictionary that is not empty begins otherwise.
    return (_read_torch(path) if start == b"PK" or start[:1] == b"\x80" else read_flax(path)), {}


def write_weights(path: Path, state: State, about: dict) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        ValueError: if the name does not end in .safetensors, or the file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a .safetensors file name for the copy, got {path.name}")
    save_tensors(path, state, {ABOUT: json.dumps(about)})


def _read_safetensors(path: Path) -> tuple[State, dict]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"cannot read {path} as safetensors ({error}); copy or convert it again") from error


def _read_torch(path: Path) -> State:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAGE's files carry their command line
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"expected a file of tensors only, got {path}, whose loading could run code") from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"cannot read {path} as a PyTorch checkpoint; download it again") from error
    for name in ("model", "state_dict"):
        tree = tree.get(name, tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not all(isinstance(array, Tensor) for array in tree.values()):
        raise ValueError(
            f"expected a state_dict of tensors in {path}, got none; give the checkpoint of MAGE or of its tokenizer"
        )
    return tree


ARRAY, SCALAR = 1, 3  # flax's extension codes; 2 is a complex number, which no network here has
DTYPES = {b"float32": torch.float32, b"float16": torch.float16, b"bfloat16": torch.bfloat16, b"float64": torch.float64}
CHUNKED = "__msgpack_chunked_array__"  # arrays over 1 GiB are cut into flat pieces


def read_flax(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a flax file by their path, for example ``params/encoder/Conv_0/kernel``.

    Raises:
        ValueError: if the file is cut short, is of another kind, or holds something else than arrays.
    """
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False)
        return dict(_leaves(_joined(tree), ""))
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"cannot read {path} as a flax checkpoint ({why}); download it again") from error


def _extension(code: int, data: bytes) -> Tensor:
    if code not in (ARRAY, SCALAR):
        raise ValueError(f"expected arrays, got the msgpack extension type {code}")
    shape, name, buffer = msgpack.unpackb(data, raw=True)
    if name not in DTYPES:
        raise ValueError(f"expected arrays of floats, got {name!r}")
    dtype = DTYPES[name]
    if math.prod(shape) * dtype.itemsize != len(buffer) or any(side < 0 for side in shape):
        raise ValueError(f"expected an array of shape {tuple(shape)} and {name!r}, got {len(buffer)} bytes")
    return torch.frombuffer(bytearray(buffer), dtype=dtype).view(shape) if buffer else torch.empty(shape, dtype=dtype)


def _joined(tree: Any) -> Any:
    """Return the tree with its chunked arrays joined."""
    if not isinstance(tree, dict):
        return tree
    if CHUNKED not in tree:
        return {name: _joined(value) for name, value in tree.items()}
    shape, chunks = tree["shape"], tree["chunks"]
    pieces = [chunks[str(index)] for index in range(len(chunks))]
    return torch.cat(pieces).view([shape[str(axis)] for axis in range(len(shape))])


def _leaves(tree: Any, path: str) -> Any:
    """Yield (path, tensor) for every leaf."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}/{name}" if path else str(name))
    else:
        raise ValueError(f"expected an array at {path or 'the root'}, got {type(tree).__name__}")
