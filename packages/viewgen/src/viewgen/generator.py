"""What every generator of views is.

Shapes: B images of a batch, H and W their height and width in pixels.
"""

import importlib
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

Supervision = Literal["none", "labels", "captions"]


@runtime_checkable
class Generator(Protocol):
    """Makes synthetic views of images in two steps, so that the first can be cached.

    A generator may also have ``name``, ``model_id`` and ``settings`` (what the manifest and settings.json say of it),
    ``input_size`` (the side in pixels of the square images it wants), and ``encoder_hash`` (whose embeddings it
    accepts as conditions).

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
GENERATORS = {"eldm": ("viewgen.eldm.generator", "ELDMGenerator")}


def load_generator(name: str, **options: Any) -> Generator:
    """The generator of that name.

    Args:
        name: a key of ``GENERATORS``.
        options: what the generator's class takes; for "eldm" at least ``folder``.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in GENERATORS:
        raise ValueError(f"there is no generator {name!r}; there is: {', '.join(sorted(GENERATORS))}")
    module, kind = GENERATORS[name]
    return getattr(importlib.import_module(module), kind)(**options)
