"""Reading a checkpoint file without running anything that it brings."""

import argparse
import hashlib
import pathlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch


def _left_out(*_: Any) -> None:
    """Stands where a file names a function of its training script; only optimizers' settings do."""


HARMLESS = [
    (argparse.Namespace, "argparse.Namespace"),  # facebookresearch/dino main_dino.py saves its arguments,
    (pathlib.PurePosixPath, "pathlib.PosixPath"),  # and run_with_submitit.py makes one of them a path,
    (pathlib.PurePosixPath, "pathlib._local.PosixPath"),  # which Python 3.13 calls so
    *((_left_out, f"{script}.exclude_bias_and_norm") for script in ("__main__", "main_vicreg")),  # vicreg's LARS
]
"""What official files hold beside tensors, numbers, text, lists and dicts, and what is built instead."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dict that `torch.save` or safetensors wrote.

    Raises:
        ValueError: no such file, not a dict, not PyTorch's or broken, or it wants to run code.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # unreadable files are reported below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist.") from None
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, str(error))) from error
    except Exception as error:  # unpicklers meet other bytes with any exception
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is no PyTorch file, or a broken one ({type(error).__name__}: {reason}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dict of tensors; save its state_dict().")
    return content


def sha256(path: Path) -> str:
    """Of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refusal(path: Path, message: str) -> str:
    """One line for what the unpickler would not do."""
    if "lightly_train" in message:
        return (
            f"{path} is a checkpoint of LightlyTrain, which holds pickled modules, and was not opened; give its "
            "export: exported_models/exported_last.pt, or lightly_train.export(..., format='torch_state_dict')"
        )
    code = re.search(r"GLOBAL ([\w.]+)|for unrecognized function <class '([\w.]+)'", message)
    if code is not None:
        return (
            f"{path} wants to run code ({code[1] or code[2]}) and was not opened; "
            "where you trust it, load it yourself and torch.save its tensors alone."
        )
    with path.open("rb") as file:
        if file.read(1) == pickle.PROTO:
            return (
                f"{path} is a pickle that torch.save did not write; reading one may run code, so it was not opened. "
                "For DeepMind's BYOL files, ajtejankar/byol-convert writes PyTorch's."
            )
    return f"{path} is no PyTorch file, or a broken one."
