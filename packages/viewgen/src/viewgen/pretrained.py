"""Folders of pretrained weights in the layout of diffusers and transformers. No code in them is executed.

Only safetensors are read, and a folder that brings Python code is refused, so nothing in a checkpoint can run.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import is_accelerate_available
from huggingface_hub import list_repo_files, snapshot_download
from transformers.utils import logging as transformers_logging

from genviews_core.backbones import first_line
from viewgen.fingerprint import files_hash

DATA_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".safetensors")  # what decides what a model makes
VARIANTS = ("*.fp16*", "*.bf16*", "*.non_ema*", "*ema_only*")  # other versions of the same weights
MOVED = {  # withdrawn repositories, and copies of them
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1-unclip": "radames/stable-diffusion-2-1-unclip-img2img",
}
LICENCES = {
    "apache-2.0": "Apache 2.0",
    "bsd-3-clause": "BSD 3-Clause",
    "creativeml-openrail-m": "CreativeML Open RAIL-M",
    "mit": "MIT",
    "openrail++": "CreativeML Open RAIL++-M",
}


def local_folder(
    model: str | os.PathLike[str], *, variant: str | None, nested: bool, hint: str, without: Sequence[str] = ()
) -> Path:
    """Return a model's folder: the path itself, or the snapshot of a hub id, downloaded if it is not in the cache.

    Args:
        model: a folder, or a hub id "owner/name", perhaps with "@revision".
        variant: the version of the weights to download, for example "fp16"; None is the plain one.
        nested: whether the components lie in folders of their own (a diffusers pipeline).
        hint: remedy at the end of the error message.
        without: patterns of files that need not be downloaded.

    Raises:
        ValueError: if it is neither a folder nor to be had from the hub, or if the folder holds code.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        below = "*/*" if nested else "*"
        wanted = [f"{below}{suffix}" for suffix in DATA_SUFFIXES] + ["model_index.json", "README.md"]
        left = [pattern for pattern in VARIANTS if variant is None or variant not in pattern]
        twins = [] if variant is None else _twins(str(model), variant)
        folder = hub_snapshot(str(model), wanted, [*left, *without, *twins], hint)
    code = sorted(folder.rglob("*.py"))
    if code:
        raise ValueError(
            f"expected a checkpoint without code, which is never run, got {code[0].name} in {folder}; remove it"
        )
    return folder


def local_file(file: str | os.PathLike[str]) -> Path:
    """Return a file: the path itself, or "owner/name/path/in/repository" on the hub, downloaded if it is not cached.

    Raises:
        ValueError: if it is neither a file nor to be had from the hub, or is not safetensors.
    """
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a .safetensors file, got {file}; convert pickled weights, which are not read")
    if path.is_file():
        return path
    owner, _, rest = path.as_posix().partition("/")
    name, _, inside = rest.partition("/")
    if not inside or path.is_absolute():
        raise ValueError(
            f"expected a file, or owner/name/file.safetensors on the hub, got {file}, which does not exist"
        )
    found = hub_snapshot(f"{owner}/{name}", [inside], [], f"check the name {file}") / inside
    if not found.is_file():
        raise ValueError(f"expected {inside} in {owner}/{name} on the hub, got no such file; check the name {file}")
    return found


def hub_snapshot(model: str, wanted: Sequence[str], left: Sequence[str], hint: str) -> Path:
    """Return the snapshot of a hub repository, with the files ``wanted`` but not ``left``, downloaded if necessary.

    Raises:
        ValueError: if the hub has no such repository or cannot be reached; ``hint`` ends the line.
    """
    repository, _, revision = model.partition("@")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        return Path(snapshot_download(repository, allow_patterns=list(wanted), ignore_patterns=list(left), **options))
    except Exception as error:  # the hub's errors have no common base
        raise ValueError(f"cannot find the model {model!r}: {_hub_reason(repository, error)}; {hint}") from error


def _hub_reason(repository: str, error: BaseException) -> str:
    """Return in one line why the hub gave nothing, and what to do."""
    kinds: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        kinds |= {kind.__name__ for kind in type(cause).__mro__}
        cause = cause.__cause__
    if "GatedRepoError" in kinds:
        return f"it is gated; accept its licence at https://huggingface.co/{repository} and run `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return "the hub has no such revision of it"
    if "RepositoryNotFoundError" in kinds:
        moved = f", it moved to {MOVED[repository]}" if repository in MOVED else ""
        return f"the hub has no such repository, or it is private{moved}"
    if "IncompleteSnapshotError" in kinds:
        return f"its download is incomplete; run `hf download {repository}` to go on with it"
    if "LocalEntryNotFoundError" in kinds or "ConnectionError" in kinds or "ConnectError" in kinds:
        return (
            "the hub cannot be reached and it is not in the cache; set HF_ENDPOINT to a mirror such as "
            f"https://hf-mirror.com, or run `hf download {repository}` elsewhere and give the folder"
        )
    return first_line(error)


def _twins(model: str, variant: str) -> list[str]:
    """Return the plain weights of which the repository has the variant as well, and which need no download."""
    repository, _, revision = model.partition("@")
    try:
        files = list_repo_files(repository, revision=revision) if revision else list_repo_files(repository)
    except Exception:  # without the hub the cache is used, with what it has
        return []
    folders = {file.rpartition("/")[0] for file in files if f".{variant}" in file and file.endswith(".safetensors")}
    weights = [file for file in files if file.endswith((".safetensors", ".safetensors.index.json"))]
    return [file for file in weights if file.rpartition("/")[0] in folders and f".{variant}" not in file]


def pipeline_class(folder: Path) -> str | None:
    """Return the pipeline's class that model_index.json names, if there is any."""
    try:
        named = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
    return named if isinstance(named, str) else None


def load_part(kind: type, folder: Path, *, dtype: str, variant: str | None = None, surplus: bool = False) -> Any:
    """Load a frozen network from safetensors and check that every weight matches.

    Args:
        kind: a model class of diffusers or transformers.
        folder: its ``config.json`` and weights.
        dtype: dtype of its parameters.
        variant: read these weights if the folder has them.
        surplus: allow weights that the network does not have.

    Raises:
        ValueError: if the weights are not safetensors, or miss, exceed or do not fit the network.
    """
    files = part_files(folder, variant)
    if not any(file.suffix == ".safetensors" for file in files):
        variants = sorted({_infix(file).partition("-")[0] for file in folder.glob("*.safetensors")})
        if variants:
            raise ValueError(
                f"expected plain weights in {folder}, got the variant {', '.join(variants)} alone; "
                f"give variant={variants[0]!r} (--variant {variants[0]})"
            )
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
