"""Load generators by name. Nothing here imports torch, so that the command line can list them."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import viewgen.generator

# Module and class of each; a module is imported when it is asked for.
GENERATORS = {
    "caption": ("viewgen.caption", "CaptionGenerator"),
    "eldm": ("viewgen.eldm.generator", "ELDMGenerator"),
    "icgan": ("viewgen.icgan.generator", "ICGANGenerator"),
    "maskgit": ("viewgen.maskgit.generator", "MaskGITGenerator"),
    "retrieval": ("viewgen.retrieval", "RetrievalGenerator"),
    "unclip": ("viewgen.unclip", "UnCLIPGenerator"),
}


@dataclass(frozen=True)
class GeneratorSpec:
    """A generator by name and options, for workers that load it themselves, each on its own device.

    Attributes:
        name: a key of ``GENERATORS``.
        options: what its class takes, but for ``device``.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, device: str) -> "viewgen.generator.Generator":
        """The generator on ``device``."""
        return load_generator(self.name, **self.options, device=device)


def generator_class(name: str) -> type:
    """The class of the generators of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in GENERATORS:
        raise ValueError(f"there is no generator {name!r}; there is: {', '.join(GENERATORS)}")
    module, kind = GENERATORS[name]
    return getattr(importlib.import_module(module), kind)


def load_generator(name: str, **options: Any) -> "viewgen.generator.Generator":
    """The generator of that name.

    Args:
        name: a key of ``GENERATORS``.
        options: what the generator's class takes; for "eldm" at least ``folder``.

    Raises:
        ValueError: if the name is unknown, or the model's files are missing, damaged or of another kind.
        TypeError: if the generator does not take an option, or needs one that is not given.
    """
    kind = generator_class(name)
    inspect.signature(kind).bind(**options)
    try:
        return kind(**options)
    except (AssertionError, MemoryError):
        raise
    except Exception as error:  # libraries raise many types for broken files
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise
        if type(error) is ValueError and "\n" not in str(error):
            raise
        files = [str(value) for value in options.values() if isinstance(value, str | Path) and Path(value).exists()]
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        message = f"cannot read the {name} model in {', '.join(files)} ({reason})"
        raise ValueError(f"{message}: its files are damaged or of another kind, get them again") from error
