"""The interface of all generators of views.

Shapes: B images of a batch, C their channels (3 for RGB), H and W their height and width in pixels.
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
    """Generates synthetic views of images in two steps, the first of which can be cached.

    A generator may also have

    - ``name``, ``model_id`` and ``settings``, which the manifest and settings.json record;
    - ``input_size``: size in pixels of the square images that it expects;
    - ``channels`` and ``value_range`` of its images, if they are not RGB;
    - ``prepare(image: UInt8[3, H, W]) -> Tensor`` and ``encode(prepared: Tensor[B, ...]) -> Tensor``, if it takes
      images of any size: ``condition`` is ``encode`` of ``prepare``, and ``prepare`` runs in threads;
    - ``condition_for(keys, images)`` instead of ``condition``, if conditions depend on keys;
    - ``from_image`` (bool) and ``condition_with(images, embeddings)``, if conditions contain the image in addition to
      its embedding: cached embeddings then replace the encoder. For views between two images, ``condition_with`` is
      called with both images and the interpolated embedding, and its two results are interpolated linearly;
    - ``partner_keys(condition, seeds)``: keys of the images that views are mixed with or taken from;
    - ``encoder_hash``: hash of the encoder whose embeddings it accepts as conditions;
    - ``strength_unit``: name of its strength, and ``strength_levels``, five strengths from weak to strong.

    Attributes:
        supervision: the strongest human supervision used to train its weights.
        licence: license of its weights.
        model_hash: hash of its weights.
    """

    supervision: Supervision
    licence: str
    model_hash: str

    def condition(self, images: UInt8[Tensor, "B C H W"]) -> Tensor:
        """Return the conditions of images, with first axis B."""
        ...

    def generate(
        self, condition: Tensor, *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B C H W"]:
        """Generate one view per condition; equal seeds and conditions give equal views.

        Args:
            condition: conditions from ``condition``, from a cache, or interpolated, with first axis B.
            seeds: one seed per view.
            strength: how much each view may differ from its source, in the generator's own unit.
        """
        ...


def to_uint8(pixels: Float[Tensor, "B 3 H W"], size: int | None) -> UInt8[Tensor, "B 3 h w"]:
    """Convert float images to uint8 on the CPU: clip to [0, 1], resize (bicubic, antialiased), and round.

    Args:
        pixels: images in [0, 1]; values outside are clipped.
        size: size of the result in pixels; None to keep the size.
    """
    pixels = pixels.float().clamp(0, 1)
    if size is not None and pixels.shape[-2:] != (size, size):
        pixels = interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).cpu()
