"""Load generators by name. This module does not import torch, so that the command line can list them."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viewgen.models import named_options

if TYPE_CHECKING:
    import viewgen.generator

# Module and class of each; a module is imported when its generator is loaded. This is all that registers a generator.
GENERATORS = {
    "caption": ("viewgen.caption", "CaptionGenerator"),
    "eldm": ("viewgen.eldm.generator", "ELDMGenerator"),
    "icgan": ("viewgen.icgan.generator", "ICGANGenerator"),
    "image-to-image": ("viewgen.image_to_image", "ImageToImageGenerator"),
    "ip-adapter": ("viewgen.ip_adapter.generator", "IPAdapterGenerator"),
    "kandinsky": ("viewgen.kandinsky", "KandinskyGenerator"),
    "maskgit": ("viewgen.maskgit.generator", "MaskGITGenerator"),
    "retrieval": ("viewgen.retrieval", "RetrievalGenerator"),
    "unclip": ("viewgen.unclip.generator", "UnCLIPGenerator"),
}


@dataclass(frozen=True)
class GeneratorSpec:
    """A generator's name and options, for workers that load it themselves, each on its own device.

    Attributes:
        name: a key of ``GENERATORS``.
        options: arguments of its class except ``device``.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, device: str) -> "viewgen.generator.Generator":
        """Load the generator on ``device``."""
        return load_generator(self.name, **self.options, device=device)


def generator_module(name: str) -> tuple[str, str]:
    """Return the names of a generator's module and class.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in GENERATORS:
        raise ValueError(f"expected a generator of {', '.join(GENERATORS)}, got {name!r}; give one of them")
    return GENERATORS[name]


def generator_class(name: str) -> type:
    """Return the class of a generator.

    Raises:
        ValueError: if the name is unknown.
    """
    module, kind = generator_module(name)
    return getattr(importlib.import_module(module), kind)


def load_generator(name: str, **options: Any) -> "viewgen.generator.Generator":
    """Load a generator.

    Args:
        name: a key of ``GENERATORS``.
        options: arguments of the generator's class; "eldm", for example, needs ``folder``. ``model`` may be a short
            name of ``viewgen.models``.

    Raises:
        ValueError: if the name is unknown, or the model's files are missing, damaged or of another kind.
        TypeError: if an option is unknown, or a required one is missing.
    """
    kind = generator_class(name)
    options = named_options(name, options)
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
        raise ValueError(f"{message}; its files are damaged or of another kind, download them again") from error
