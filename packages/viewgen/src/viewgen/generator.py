"""What every generator of views is.

Shapes: B images of a batch, H and W their height and width in pixels.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Supervision = Literal["none", "labels", "captions"]


@runtime_checkable
class Generator(Protocol):
    """Makes synthetic views of images in two steps, so that the first can be cached.

    A generator may also have

    - ``name``, ``model_id`` and ``settings``: what the manifest and settings.json say of it;
    - ``input_size``: the side in pixels of the square images it wants;
    - ``prepare(image: UInt8[3, H, W]) -> Tensor`` and ``encode(prepared: Tensor[B, ...]) -> Tensor``, if it takes
      images of any size: ``condition`` is the second after the first, and many threads prepare while it works;
    - ``condition_for(keys, images)`` in place of ``condition``, if an image's key matters;
    - ``partner_keys(condition, seeds)``: the second image behind each view;
    - ``encoder_hash``: whose embeddings it accepts as conditions;
    - ``strength_unit``: what its strength is, and ``strength_levels``, five of them from weak to strong.

    Attributes:
        supervision: the strongest human supervision behind its weights.
        licence: the licence of its weights.
        model_hash: the hash of its weights.
    """

    supervision: Supervision
    licence: str
    model_hash: str

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Tensor:
        """What the generator needs to know of each image, first axis B."""
        ...

    def generate(
        self, condition: Tensor, *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """One view per condition; the same seed and condition give the same view.

        Args:
            condition: from ``condition``, from a cache, or interpolated; first axis B.
            seeds: one per view.
            strength: how far each view may leave its source, in the generator's own unit.
        """
        ...


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

    def load(self, device: str) -> Generator:
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


def load_generator(name: str, **options: Any) -> Generator:
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
    except (AssertionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # libraries raise many types for broken files
        if type(error) is ValueError and "\n" not in str(error):
            raise
        files = [str(value) for value in options.values() if isinstance(value, str | Path) and Path(value).exists()]
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        message = f"cannot read the {name} model in {', '.join(files)} ({reason})"
        raise ValueError(f"{message}: its files are damaged or of another kind, get them again") from error
