"""The tensors of a weights file, whichever of three formats it has; no file can run code.

Formats: flax msgpack (official MaskGIT), PyTorch (MAGE), safetensors (ours).
"""

import argparse
import json
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genviews_core.tensor_files import save_tensors
from viewgen.maskgit.flax_file import read_flax

State = dict[str, Tensor]
SOURCE = "https://storage.googleapis.com/maskgit-public/checkpoints"
ABOUT = "viewgen.maskgit"  # the entry of our own files' metadata


def read_weights(path: Path) -> tuple[State, dict]:
    """The tensors by the names the file gives them, and what one of our own files says of itself.

    Raises:
        ValueError: if the file is missing or broken, or would execute code.
    """
    if not path.is_file():
        raise ValueError(f"there is no weights file {path}: download one, for example from {SOURCE}")
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
        raise ValueError(f"name the copy something.safetensors, not {path.name}")
    save_tensors(path, state, {ABOUT: json.dumps(about)})


def _read_safetensors(path: Path) -> tuple[State, dict]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): copy or convert it again") from error


def _read_torch(path: Path) -> State:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAGE's files carry their command line
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds more than tensors, and loading it could run code") from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a whole PyTorch checkpoint: download it again") from error
    for name in ("model", "state_dict"):
        tree = tree.get(name, tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not all(isinstance(array, Tensor) for array in tree.values()):
        raise ValueError(f"{path} holds no state_dict of tensors: give the checkpoint of MAGE or of its tokenizer")
    return tree
