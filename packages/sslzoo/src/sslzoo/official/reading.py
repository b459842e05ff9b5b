"""Read a checkpoint file without executing code in it, and detect its format."""

import argparse
import hashlib
import pathlib
import pickle
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sslzoo.official.formats import BARE, FORMATS, NAMED_FORMATS, CheckpointFormat, unwrap
from sslzoo.official.key_mapping import Tensors, from_lightly, require_counters

FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight", "0.weight")
"""First layer of a ResNet, a vision transformer, and a ResNet in an nn.Sequential."""


def _ignored(*_: Any) -> None:
    """Replace a function of a training script that the optimizer settings in a file refer to."""


SAFE_GLOBALS = [
    (argparse.Namespace, "argparse.Namespace"),  # facebookresearch/dino main_dino.py saves its arguments,
    (pathlib.PurePosixPath, "pathlib.PosixPath"),  # and run_with_submitit.py makes one of them a path,
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),  # which Python 3.13 calls so
    *((_ignored, f"{script}.exclude_bias_and_norm") for script in ("__main__", "main_vicreg")),  # vicreg's LARS
]
"""Other types in official files than tensors, numbers, text, lists and dicts: the substitute, and the type's name."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the dict that `torch.save` or safetensors wrote.

    Raises:
        ValueError: the file does not exist, is not a PyTorch file, is damaged, does not hold a dict, or contains code.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # unreadable files are reported below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"expected a checkpoint, got {path}, which does not exist") from None
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except Exception as error:  # unpicklers meet other bytes with any exception
        reason = str(error).partition("\n")[0]
        raise ValueError(f"expected a PyTorch file, got {path}, damaged or of another kind ({reason})") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a dict of tensors in {path}, got a {type(content).__name__}; save its state_dict()")
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refusal(path: Path, message: str) -> str:
    """Return the error message for an unpickling error."""
    if "lightly_train" in message:
        return (
            f"{path} is a checkpoint of LightlyTrain, which holds pickled modules, and was not opened; give its "
            "export: exported_models/exported_last.pt, or lightly_train.export(..., format='torch_state_dict')"
        )
    code = re.search(r"GLOBAL ([\w.]+)|for unrecognized function <class '([\w.]+)'", message)
    if code is not None:
        return (
            f"{path} wants to run code ({code[1] or code[2]}) and was not opened; "
            "if you trust it, load it yourself and torch.save its tensors only"
        )
    with path.open("rb") as file:
        if file.read(1) == pickle.PROTO:
            return (
                f"{path} is a pickle that torch.save did not write; reading one may run code, so it was not opened; "
                "for DeepMind's BYOL files, ajtejankar/byol-convert writes PyTorch's"
            )
    return f"expected a PyTorch file, got {path}, damaged or of another kind"


def detect_format(
    path: Path, content: dict[str, Any], name: str | None, own: Collection[str] = ()
) -> tuple[CheckpointFormat, Tensors]:
    """Return the format of a checkpoint and its tensors.

    Args:
        path: path of the file, for error messages.
        content: content of the file.
        name: name of the format, if given by the user.
        own: tensor names of the architecture, if given by the user.

    Raises:
        ValueError: the name is unknown, or no format matches.
    """
    known = {each.name: each for each in (*FORMATS, *NAMED_FORMATS)}
    if name is not None and name not in known:
        raise ValueError(f"expected a format {', '.join(known)}, got {name!r}; choose one of them")
    for candidate in FORMATS if name is None else [known[name]]:
        tensors = candidate.tensors(content)
        if tensors is None:
            continue
        if candidate.rename is not require_counters or not _has_prefix(tensors) or not tensors.keys().isdisjoint(own):
            return candidate, tensors
    problem = "an unknown format" if name is None else f"not the format {name}"
    if prefixes := sorted({prefix for tensors in _state_dicts(content) for prefix in prefixes_of(tensors) if prefix}):
        listed = " or ".join(prefixes[:4])
        raise ValueError(
            f"{path} has {problem}; networks in it have names that begin with {listed}; choose one with "
            f"--prefix {prefixes[0]} (prefix= in Python)"
        )
    found = [f"{key} ({', '.join(list(map(str, value))[:3])}, ...)" if isinstance(value, dict) else str(key)
             for key, value in list(content.items())[:8]]  # fmt: skip
    raise ValueError(f"{path} has {problem}; found {', '.join(found) or 'nothing in it'}. Known: {', '.join(known)}")


def select_prefix(path: Path, content: dict[str, Any], prefix: str) -> tuple[CheckpointFormat, Tensors]:
    """Return the tensors whose names start with a prefix, given with or without its final dot.

    Raises:
        ValueError: no name starts with the prefix.
    """
    prefix = f"{prefix.removesuffix('.')}."
    for tensors in _state_dicts(content):
        inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if inside:
            renamed = from_lightly(inside) if "0.weight" in inside else inside
            return replace(BARE, name=f"prefix {prefix}", rename=None), renamed
    raise ValueError(f"{path} has no tensor whose name begins with {prefix}")


def prefixes_of(tensors: Tensors) -> set[str]:
    """Return the name prefixes of all networks that take images, found by their first layers."""
    first = [(name, end) for end in FIRST_LAYERS for name in tensors if name.endswith(end)]
    images = [(name, end) for name, end in first if tensors[name].ndim == 4 and tensors[name].shape[1] == 3]
    starts = {name.removesuffix(end) for name, end in images}
    return {start for start in starts if not start or re.search(r"[^.\d]\.$", start)}


def _has_prefix(tensors: Tensors) -> bool:
    """Return whether there are networks, all with a nonempty name prefix."""
    prefixes = prefixes_of(tensors)
    return bool(prefixes) and "" not in prefixes


def _state_dicts(content: dict[str, Any]) -> Iterator[Tensors]:
    """Yield all state dicts in a file."""
    yield from filter(None, map(unwrap, (content, *content.values())))
