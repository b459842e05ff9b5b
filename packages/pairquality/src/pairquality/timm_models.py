"""Networks of timm, without their head."""

from pathlib import Path
from typing import Any

import timm

from genviews_core.backbones import create_backbone, last_map, load_timm, timm_images
from pairquality.recipe import Recipe, fill, read_tensors


def timm_recipe(name: str, size: int | None) -> Recipe:
    """The network of "MODEL" with timm's weights, or of "MODEL:PATH" with those of a file.

    Raises:
        ValueError: unknown model, or weights that cannot be had or do not fit.
    """
    model, _, path = name.partition(":")
    if not timm.is_model(model):
        raise ValueError(f"timm has no model {model!r}: choose one of timm.list_models().")
    if path:
        module: Any = create_backbone(f"timm/{model}", image_size=size)
        heads = module.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        tensors = read_tensors(Path(path))
        fill(module, {key: value for key, value in tensors.items() if not key.startswith(heads)}, path)
        images = timm_images(module)
    else:
        module, images = load_timm(model, size=size)
    mean, std = images["mean"], images["std"]
    return Recipe(module=module, size=size or images["size"], mean=mean, std=std, take_map=last_map)
