"""What every generator of views is.

Shapes: B images of a batch, H and W their height and width in pixels.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

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


def to_uint8(pixels: Float[Tensor, "B 3 H W"], side: int | None) -> UInt8[Tensor, "B 3 h w"]:
    """Pixels in [0, 1], clipped, resized (bicubic, antialiased) before they are rounded, on the CPU.

    Args:
        pixels: what lies outside [0, 1] is clipped.
        side: of the views, in pixels; None keeps the pixels' own.
    """
    pixels = pixels.float().clamp(0, 1)
    if side is not None and pixels.shape[-2:] != (side, side):
        pixels = interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).cpu()
