"""The command ``sslzoo``: import and export backbones.

sslzoo import CHECKPOINT --out BACKBONE

sslzoo export BACKBONE --form detectron2 --out weights.pkl
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import nn

from genviews_core.command import command
from sslzoo.backbone_file import save_backbone
from sslzoo.backbone_source import open_backbone
from sslzoo.export import detectron2_settings, timm_network, to_detectron2, to_timm, to_torchvision, torchvision_network
from sslzoo.official import open_official


@dataclass(frozen=True, kw_only=True)
class Import:
    """Write the backbone of an official checkpoint (MoCo, SimSiam, BYOL, SwAV, VICReg, DINO, ...) as a folder."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint; no code in it is executed."""
    out: Path
    """Folder for backbone.safetensors and backbone.json."""
    architecture: str | None = None
    """Name for create_backbone; default: inferred from names and shapes."""
    layout: str | None = None
    """Layout of files with only a network: dino-backbone, vicreg-backbone, barlow-twins-backbone, simclr-converter."""
    prefix: str | None = None
    """For unknown layouts: prefix of the names of the backbone's tensors; all other tensors are ignored."""
    image_size: int | None = None
    """Input size in pixels; default: that of the training. Positions of vision transformers are interpolated."""
    mean: tuple[float, float, float] | None = None
    """Normalization mean of its images; default: that of the layout, or timm's for a bare timm network."""
    std: tuple[float, float, float] | None = None
    """Normalization standard deviation, likewise."""
    allow_nonfinite: bool = False
    """Accept tensors with NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a backbone for another library, and print the code that loads it there."""

    backbone: Annotated[str, tyro.conf.Positional]
    """A backbone folder, an official checkpoint, or timm/<name>."""
    form: Literal["torchvision", "timm", "detectron2"]
    out: Path
    """The file: .pth or .safetensors; .pkl for detectron2."""


def import_checkpoint(options: Import) -> str:
    """Write the backbone folder, and return a line that describes it."""
    names = ("layout", "prefix", "image_size", "mean", "std", "allow_nonfinite")
    backbone, about = open_official(
        options.checkpoint, options.architecture, **{name: getattr(options, name) for name in names}
    )
    save_backbone(options.out, backbone, **about)
    recipe = about["recipe"]
    source = recipe["source"]
    return (
        f"{options.out}: {about['architecture']['name']}, {about['method']}, read as {source['layout']} "
        f"({source['origin']}; licence: {source['licence']}); images of {recipe['image_size']} px, "
        f"mean {recipe['mean']}, std {recipe['std']} (--image-size, --mean and --std change them)"
    )


def export_backbone(options: Export) -> str:
    """Write the file, and return the code that loads it."""
    backbone, images = open_backbone(options.backbone)
    if options.form == "detectron2":
        to_detectron2(backbone, options.out)
        return _detectron2_lines(backbone, images, options.out)
    convert, network = {"torchvision": (to_torchvision, torchvision_network), "timm": (to_timm, timm_network)}[
        options.form
    ]
    convert(backbone, options.out)
    read = "safetensors.torch.load_file" if options.out.suffix == ".safetensors" else "torch.load"
    return f'{network(backbone)}\nnetwork.load_state_dict({read}("{options.out}"))'


def _detectron2_lines(backbone: nn.Module, images: dict[str, Any], out: Path) -> str:
    settings = {
        "MODEL.WEIGHTS": out,
        **detectron2_settings(backbone),
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * value, 3) for value in images["mean"]],
        "MODEL.PIXEL_STD": [round(255 * value, 3) for value in images["std"]],
    }
    return "\n".join(f"{name} {value}" for name, value in settings.items())


@command
def main() -> None:
    """Read the command line and run it; a user's mistake ends in one line."""
    commands = Annotated[Import, tyro.conf.subcommand("import")] | Annotated[Export, tyro.conf.subcommand("export")]
    try:
        options = tyro.cli(commands, prog="sslzoo", description="Backbones in and out.")  # pyright: ignore
        print(import_checkpoint(options) if isinstance(options, Import) else export_backbone(options))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
