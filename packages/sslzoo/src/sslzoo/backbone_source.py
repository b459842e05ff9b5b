"""A backbone from wherever it is: a folder of ours, an official checkpoint, or timm."""

from pathlib import Path
from typing import Any

from torch import nn

from genviews_core.backbones import build_described, images_of, load_timm, read_description
from sslzoo.official import open_official

TIMM = "timm/"


def open_backbone(source: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network in evaluation mode and what images it knows: `size` in pixels, `mean`, `std`.

    Args:
        source: a folder that save_backbone wrote, a checkpoint file that open_official reads, or
            "timm/<name>.<tag>" for weights that timm fetches ("timm/vit_small_patch16_224.dino").

    Raises:
        ValueError: it is none of these, or broken.
    """
    path = Path(source)
    if path.is_dir():
        about = read_description(path)
        return build_described(about), images_of(about)
    if path.is_file():
        backbone, about = open_official(path)
        recipe = about["recipe"]
        return backbone, {"size": recipe["image_size"], "mean": tuple(recipe["mean"]), "std": tuple(recipe["std"])}
    if str(source).startswith(TIMM):
        return load_timm(str(source).removeprefix(TIMM))
    raise ValueError(f"{source} is no backbone folder, no checkpoint file, and does not begin with {TIMM}.")
