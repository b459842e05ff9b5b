"""Folders of pretrained weights in the layout of diffusers and transformers. No code in them is executed.

Only safetensors are read, and a folder that brings Python code is refused, so nothing in a checkpoint can run.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import is_accelerate_available
from huggingface_hub import snapshot_download
from transformers.utils import logging as transformers_logging

from genviews_core.backbones import first_line
from viewgen.fingerprint import files_hash

DATA_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors")  # what decides what a model makes
VARIANTS = ("*.fp16*", "*.bf16*", "*.non_ema*", "*ema_only*")  # other versions of the same weights
LICENCES = {
    "apache-2.0": "Apache 2.0",
    "bsd-3-clause": "BSD 3-Clause",
    "creativeml-openrail-m": "CreativeML Open RAIL-M",
    "mit": "MIT",
    "openrail++": "CreativeML Open RAIL++-M",
}


def local_folder(model: str | os.PathLike[str], *, variant: str | None, nested: bool, hint: str) -> Path:
    """Return a model's folder: the path itself, or the snapshot of a hub id, downloaded if it is not in the cache.

    Args:
        model: a folder, or a hub id "owner/name".
        variant: the version of the weights to download, for example "fp16"; None is the plain one.
        nested: whether the components lie in folders of their own (a diffusers pipeline).
        hint: what to do if there is no such model; ends the error's line.

    Raises:
        ValueError: if it is neither a folder nor to be had from the hub, or if the folder holds code.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        below = "*/*" if nested else "*"
        wanted = [f"{below}{suffix}" for suffix in DATA_SUFFIXES] + ["model_index.json", "README.md"]
        left = [pattern for pattern in VARIANTS if variant is None or variant not in pattern]
        try:
            folder = Path(snapshot_download(str(model), allow_patterns=wanted, ignore_patterns=left))
        except Exception as error:  # the hub's errors have no common base
            raise ValueError(f"cannot find the model {str(model)!r} ({first_line(error)}); {hint}") from error
    code = sorted(folder.rglob("*.py"))
    if code:
        raise ValueError(
            f"expected a checkpoint without code, which is never run, got {code[0].name} in {folder}; remove it"
        )
    return folder


def load_part(kind: type, folder: Path, *, dtype: str, variant: str | None = None, surplus: bool = False) -> Any:
    """Load a frozen network from safetensors and check that every weight matches.

    Args:
        kind: a model class of diffusers or transformers.
        folder: its ``config.json`` and weights.
        dtype: of its parameters.
        variant: read these weights if the folder has them.
        surplus: allow weights that the network does not have.

    Raises:
        ValueError: if the weights are not safetensors, or miss, exceed or do not fit the network.
    """
    files = part_files(folder, variant)
    if not any(file.suffix == ".safetensors" for file in files):
        raise ValueError(
            f"expected .safetensors weights in {folder}, got none; convert pickled weights, which are not read"
        )
    number = getattr(torch, dtype)
    options: dict[str, Any] = {"dtype": number, "trust_remote_code": False}
    if issubclass(kind, ModelMixin):
        options = {"torch_dtype": number, "low_cpu_mem_usage": is_accelerate_available()}
    named = variant if variant is not None and any(_infix(file).startswith(variant) for file in files) else None
    try:
        with _quiet():
            network, report = kind.from_pretrained(  # type: ignore[attr-defined]
                folder,
                variant=named,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # a broken file or configuration raises many unrelated types
        raise ValueError(f"cannot read the weights in {folder}: {first_line(error)}") from error
    _refuse_misfits(folder, report, ("missing", "mismatched") if surplus else ("missing", "unexpected", "mismatched"))
    return network.eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' long report on mismatched weights; our error reports them in one line."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _refuse_misfits(folder: Path, report: dict[str, Any], wrong: Sequence[str]) -> None:
    faults = []
    for fault in wrong:
        keys = sorted(key if isinstance(key, str) else key[0] for key in report[f"{fault}_keys"])
        if keys:
            faults.append(f"{len(keys)} {fault} ({', '.join(keys[:2])}{', ...' if len(keys) > 2 else ''})")
    if faults:
        raise ValueError(f"the weights in {folder} do not match its config.json: {'; '.join(faults)}")


def part_files(folder: Path, variant: str | None = None) -> list[Path]:
    """Return the sorted files of one component that determine what it computes, with one variant of the weights."""
    files = [file for file in sorted(folder.glob("*")) if file.suffix in DATA_SUFFIXES]
    weights = [file for file in files if file.suffix == ".safetensors"]
    chosen = [file for file in weights if variant is not None and _infix(file).startswith(variant)]
    chosen = chosen or [file for file in weights if not _infix(file)]
    return [file for file in files if file.suffix != ".safetensors" or file in chosen]


def _infix(file: Path) -> str:
    """Return the variant in a weight file's name: "fp16" in model.fp16.safetensors, "" in model.safetensors."""
    return file.stem.partition(".")[2]


def parts_hash(folders: Sequence[Path], variant: str | None = None) -> str:
    """Hash the components' names, configurations and weights."""
    files = (file for folder in folders for file in part_files(folder, variant))
    return files_hash((f"{file.parent.name}/{file.name}", file) for file in files)


def licence_of(folder: Path, model: str | os.PathLike[str]) -> str:
    """Return the licence stated by the model card in the folder, or a note that it states none."""
    card = folder / "README.md"
    front = card.read_text(errors="replace").split("\n---", 1)[0] if card.is_file() else ""
    stated = re.search(r"^license(?:_name)?:\s*(?!other\s*$)[\"']?([^\s\"']+)", front, re.MULTILINE)
    return LICENCES.get(stated[1], stated[1]) if stated else f"unknown: see the card of {model}"
