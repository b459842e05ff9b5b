"""What a folder of views was made with; the same in every call that adds to it."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from viewgen.embed import Embeddings
from viewgen.generator import Generator
from viewgen.interpolate import Interpolation
from viewgen.manifest import cut_torn_line

Strength = float | Mapping[str, float] | None


def strength_of(strength: Strength, keys: Sequence[str]) -> Float[Tensor, " B"] | None:
    """The strength of each key's view.

    Raises:
        ValueError: if a mapping lacks a key.
    """
    if strength is None:
        return None
    if not isinstance(strength, Mapping):
        return torch.full((len(keys),), float(strength))
    lacking = next((key for key in keys if key not in strength), None)
    if lacking is not None:
        raise ValueError(f"strength has no value for the image {lacking!r}: give one for every key")
    return torch.tensor([float(strength[key]) for key in keys])


def run_settings(
    generator: Generator,
    seed: int,
    strength: Strength,
    image_format: str,
    embeddings: Embeddings | None,
    interpolate: Interpolation | None,
) -> dict:
    """All that decides how a view looks, as JSON values; a mapping of strengths by its hash."""
    if isinstance(strength, Mapping):
        listed = json.dumps(sorted((key, float(value)) for key, value in strength.items()))
        strength_text = f"by key, hash {blake2b(listed.encode(), digest_size=16).hexdigest()}"
    settings = {
        "generator": getattr(generator, "name", type(generator).__name__),
        "model_hash": generator.model_hash,
        "generator_settings": getattr(generator, "settings", {}),
        "seed": seed,
        "strength": strength_text if isinstance(strength, Mapping) else strength,
        "image_format": image_format,
        "encoder_hash": None if embeddings is None else embeddings.encoder_hash,
        "interpolate": None if interpolate is None else asdict(interpolate),
    }
    return json.loads(json.dumps(settings))


def claim_settings(views_root: Path, settings: dict) -> None:
    """Write ``settings.json``, or compare with the one that is there; many processes may do so at once.

    Raises:
        ValueError: naming the settings that differ.
    """
    path, own = views_root / "settings.json", views_root / f"settings.json.{os.getpid()}.tmp"
    if not path.exists():
        own.write_text(json.dumps(settings, indent=2) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    found = json.loads(path.read_text())
    differing = [name for name in settings if found.get(name) != settings[name]]
    if differing:
        told = "; ".join(f"{name} was {found.get(name)}, now {settings[name]}" for name in differing)
        raise ValueError(f"{views_root} holds views of other settings ({told}): choose another folder")


class Failures:
    """The images that cannot be had, one line each in ``failures.jsonl``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        with path.open("r+b") as file:
            cut_torn_line(file)
        with path.open() as lines:
            self._known = {json.loads(line)["key"] for line in lines}

    def add(self, key: str, error: str) -> None:
        """Append a line, unless the key has one."""
        if key not in self._known:
            self._known.add(key)
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "error": error}) + "\n")
