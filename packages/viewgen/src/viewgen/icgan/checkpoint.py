"""Official IC-GAN checkpoints (facebookresearch/ic_gan), read strictly and without running anything they hold.

Shapes: O and I are the output and input features of a layer, ``*kernel`` is its kernel size.
"""

import codecs
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import ReLU
from torch.nn.functional import normalize
from torch.serialization import safe_globals

from viewgen.icgan.model import ICGAN, ICGANConfig

SPECTRAL_NORM_EPS = 1e-6  # --SN_eps of the official code
CLASS_EMBEDDING = "shared.weight"  # of the official generator, which never uses it without labels
Shape = tuple[int, ...]
# Classes in the official trainer's state besides plain values: its activation, and a FID as a numpy scalar (under the
# old and the new name of numpy's module). Unpickling them runs no code.
SCALAR = np.float64(0).__reduce__()[0]
BESIDE_THE_FID = [
    ReLU,
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    codecs.encode,
]


def load_icgan(path: str | os.PathLike[str]) -> ICGAN:
    """Load an official generator for inference: frozen, float32, spectral norms folded into the weights.

    Args:
        path: a ``G_ema_best*.pth`` (or its tensors as ``.safetensors``), or the experiment's folder.

    Raises:
        ValueError: If it is missing, damaged, contains more than tensors, or does not fit the network.
    """
    path = find_weights(path)
    tensors = read_tensors(path)
    config = deduce_config(tensors, path)
    compare(checkpoint_shapes(config), tensors, path)
    with torch.device("meta"):
        network = ICGAN(config)
    network.load_state_dict(fold_spectral_norms(tensors), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def find_weights(path: str | os.PathLike[str]) -> Path:
    """Return the weights file: ``path`` itself, or the ``G_ema_best*.pth`` with the lowest FID in a folder.

    Raises:
        ValueError: if there is none, or if the FIDs cannot be had without running pickled code.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.glob("G_ema_best*.pth"))
    if not found:
        raise ValueError(
            f"expected a G_ema_best*.pth in {path}, got none; give an IC-GAN experiment's folder, or the file itself"
        )
    return found[0] if len(found) == 1 else min(found, key=_best_fid)


def _best_fid(weights: Path) -> float:
    state = weights.with_name(weights.name.replace("G_ema", "state_dict"))
    try:
        with safe_globals(BESIDE_THE_FID):
            return float(_read_plain(state)["best_FID"])
    except KeyError:
        reason = f"{state} has no best_FID"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(
        f"{weights.parent} has several G_ema_best*.pth and their FIDs cannot be read; give one file: {reason}"
    )


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or of a torch file that contains only named tensors.

    Raises:
        ValueError: if it is missing, damaged, or holds anything else.
    """
    path = Path(path)
    held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_plain(path)
    if not isinstance(held, Mapping) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise ValueError(f"expected a file that contains only named tensors, got other values in {path}")
    return dict(held)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights {path}: {error}") from error


def _read_plain(path: Path) -> Any:
    """Load a torch file that contains only tensors, numbers and strings in lists and mappings."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"cannot read the weights {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it calls {called[1]}" if called else "it is damaged or was not written by torch.save"
        raise ValueError(f"expected a file of plain tensors, got {path}: {reason}") from error
    except Exception as error:  # damaged files raise many types of errors in the zip and pickle readers
        raise ValueError(f"{path} is damaged or was not written by torch.save") from error


def deduce_config(tensors: Mapping[str, Tensor], path: Path) -> ICGANConfig:
    """Infer the configuration of the network from the shapes of its tensors.

    Raises:
        ValueError: if ``path`` is no IC-GAN generator, or one that takes labels.
    """
    count = 0
    while f"blocks.{count}.0.conv1.weight" in tensors:
        count += 1
    needed = ["linear.weight", "shared_feat.weight", "blocks.0.0.conv1.weight", "blocks.0.0.bn1.gain.weight"]
    absent = [name for name in needed if name not in tensors]
    if absent:
        raise ValueError(f"expected an unconditional IC-GAN generator, got {path}, which lacks {', '.join(absent)}")
    shapes = [tuple(tensors[f"blocks.{index}.0.conv1.weight"].shape) for index in range(count)]
    chunk, (embedded, features) = tensors["linear.weight"].shape[1], tensors["shared_feat.weight"].shape
    if tensors["blocks.0.0.bn1.gain.weight"].shape[1] > embedded + chunk:
        raise ValueError(
            f"expected an icgan_* checkpoint, got the class-conditional IC-GAN (cc_icgan) {path}, which needs labels"
        )
    return ICGANConfig(
        channels=(shapes[0][1], *(shape[0] for shape in shapes)),
        attention=tuple(index for index in range(count) if f"blocks.{index}.1.theta.weight" in tensors),
        chunk=chunk,
        embedded=embedded,
        features=features,
    )


def checkpoint_shapes(config: ICGANConfig) -> dict[str, Shape]:
    """Return the shape of every tensor of an official checkpoint of that network (198 tensors at 256 px)."""
    with torch.device("meta"):
        own = {name: tuple(tensor.shape) for name, tensor in ICGAN(config).state_dict().items()}
    shapes: dict[str, Shape] = {CLASS_EMBEDDING: (1000, 128), **own}
    for name, shape in own.items():
        if name.endswith(".weight"):
            layer = name.removesuffix("weight")
            shapes |= {f"{layer}u0": (1, shape[0]), f"{layer}sv0": (1,)}
    return shapes


def compare(expected: Mapping[str, Shape], found: Mapping[str, Tensor], path: Path) -> None:
    """Check the names and shapes of a file's tensors against those that the network expects.

    Raises:
        ValueError: with the counts of missing, unknown and mismatched tensors, up to three names of each.
    """
    mismatched = [
        f"{name} {tuple(found[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    faults = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "mismatched": mismatched,
    }
    problems = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in faults.items() if names]
    if problems:
        raise ValueError(f"the tensors of {path} do not match the network: {'; '.join(problems)}")


def fold_spectral_norms(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's weights, each divided by its spectral norm where the file has a singular vector u0 for it.

    As the official layers in evaluation: v = n(u0 W), u = n(v W^T), sigma = v W^T u^T, where n normalizes to length
    1. Computed in float64, so that the weights do not depend on the order of summation.
    """
    folded = {}
    for name, tensor in tensors.items():
        layer = name.removesuffix("weight")
        if f"{layer}u0" in tensors and layer != name:
            folded[name] = _over_spectral_norm(tensor.double(), tensors[f"{layer}u0"].double()).float()
        elif name != CLASS_EMBEDDING and not name.endswith((".u0", ".sv0")):
            folded[name] = tensor.float()
    return folded


def _over_spectral_norm(weight: Float[Tensor, "O I *kernel"], u: Float[Tensor, "1 O"]) -> Float[Tensor, "O I *kernel"]:
    matrix = weight.flatten(1)
    v = normalize(u @ matrix, eps=SPECTRAL_NORM_EPS)
    u = normalize(v @ matrix.T, eps=SPECTRAL_NORM_EPS)
    return weight / (v @ matrix.T @ u.T)[0, 0]
