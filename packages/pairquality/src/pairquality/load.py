"""Encoders by name."""

from dataclasses import replace
from pathlib import Path

import torch

from pairquality.encoder import FeatureEncoder, Triple
from pairquality.recipe import Recipe


def load_encoder(
    name: str,
    *,
    size: int | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    autocast: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> FeatureEncoder:
    """A pretrained encoder, frozen: images -> Float[B, L, D].

    "open_clip/MODEL:TAG" gives patch tokens after ln_post, without class token and projection, of a vision transformer,
    and the last map of a convolutional network, before its norm. GenView's (https://arxiv.org/abs/2403.12003) are
    "open_clip/ViT-H-14:laion2b_s32b_b79k" for ratios (256 x 1280) and
    "open_clip/convnext_base_w:laion2B-s13B-b82K-augreg" for pairs (49 x 1024).

    Args:
        name: "open_clip/MODEL:TAG"; "open_clip/MODEL:PATH" of a checkpoint's file or folder; open_clip's own
            "open_clip/local-dir:FOLDER" and "open_clip/hf-hub:OWNER/NAME"; "timm/MODEL", or "timm/MODEL:PATH" of a
            state dict; or the folder of a backbone: backbone.safetensors and backbone.json.
        size: side in pixels of its images; the model's own if None (GenView's 224 for convnext_base_w).
        mean: normalisation, where the model's own is not known or not wanted.
        std: the same.
        autocast: the type it computes in; float32 if None.
        device: where it runs.

    Raises:
        ValueError: unknown name, or weights that are missing, broken or do not fit.
    """
    if size is not None and size < 1:
        raise ValueError(f"expected a size of 1 pixel or more, got {size}; leave it out for the encoder's own")
    recipe = _recipe(name, size, normalised=mean is not None and std is not None)
    recipe = replace(recipe, mean=mean or recipe.mean, std=std or recipe.std)
    encoder = FeatureEncoder(
        recipe.module, recipe.size, recipe.mean, recipe.std, name, take_map=recipe.take_map, autocast=autocast
    )
    return encoder.to(device)


def _recipe(name: str, size: int | None, normalised: bool) -> Recipe:
    """Imports only the library that is asked for: open_clip and timm take seconds."""
    library, _, rest = name.partition("/")
    if library == "open_clip":
        from pairquality.open_clip_models import open_clip_recipe

        return open_clip_recipe(rest, size)
    if library == "timm":
        from pairquality.timm_models import timm_recipe

        return timm_recipe(rest, size)
    if Path(name, "backbone.json").is_file():
        from pairquality.backbone_folder import backbone_recipe

        return backbone_recipe(Path(name), size, normalised=normalised)
    raise ValueError(f"Unknown encoder {name!r}: give open_clip/MODEL:TAG, timm/MODEL, or a folder with backbone.json.")
