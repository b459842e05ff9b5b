"""The command ``sslzoo``: backbones in and out.

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
    """The file; nothing in it is executed."""
    out: Path
    """Folder for backbone.safetensors and backbone.json."""
    architecture: str | None = None
    """create_backbone's name; left out, found by names and shapes."""
    layout: str | None = None
    """Of files that hold a network alone: dino-backbone, vicreg-backbone, barlow-twins-backbone, simclr-converter."""
    prefix: str | None = None
    """For files in no known layout: what the names of the backbone's tensors begin with; all others are left out."""
    image_size: int | None = None
    """Pixels, where not those of its training; a vision transformer's positions are interpolated."""
    mean: tuple[float, float, float] | None = None
    """Of its images, where the layout's, or timm's for a bare network of timm, is not the one."""
    std: tuple[float, float, float] | None = None
    allow_nonfinite: bool = False
    """Take tensors that hold NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a backbone for another library, and say how it is loaded there."""

    backbone: Annotated[str, tyro.conf.Positional]
    """A backbone folder, an official checkpoint, or timm/<name>."""
    form: Literal["torchvision", "timm", "detectron2"]
    out: Path
    """The file: .pth or .safetensors; .pkl for detectron2."""


def import_checkpoint(options: Import) -> str:
    """Write the folder; a line that says what it holds."""
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
    """Write the file; lines that load it."""
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
