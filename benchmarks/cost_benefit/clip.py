"""CLIP's image embedding, after its projection: what CLIP similarities are measured with.

pairquality's encoders are the same towers without it: a vector for each patch.
"""

from __future__ import annotations

from typing import Any

import open_clip
from jaxtyping import Float
from torch import Tensor, nn

import viewgen


class _ImageTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        return self.visual(images)


def open_clip_encoder(name: str, device: str) -> viewgen.ImageEncoder:
    """An open_clip model's image tower.

    Args:
        name: MODEL:TAG as open_clip lists them, or MODEL:FILE with a checkpoint that holds nothing but tensors.
        device: where it runs.

    Raises:
        ValueError: if open_clip does not know the model, or its weights cannot be had.
    """
    architecture, colon, weights = name.partition(":")
    if architecture not in open_clip.list_models() or not colon:
        raise ValueError(f"unknown encoder open_clip/{name}: write open_clip/MODEL:TAG, as open_clip.list_pretrained()")
    try:
        model: Any = open_clip.create_model(architecture, pretrained=weights, weights_only=True)
    except Exception as error:  # the hub's and open_clip's errors have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"cannot have the weights {weights!r} of {architecture} ({reason}): give a file") from error
    about = model.visual.preprocess_cfg
    size = about["size"][-1] if isinstance(about["size"], (tuple, list)) else about["size"]
    return viewgen.ImageEncoder(
        _ImageTower(model),
        size=size,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        name=f"open_clip/{name}",
        supervision="captions",
        device=device,
    )
