"""The command ``sslzoo``: import and export backbones.

sslzoo import CHECKPOINT --out BACKBONE

sslzoo export BACKBONE --format detectron2 --out weights.pkl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from genviews_core.command import command

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Import:
    """Write the backbone of an official checkpoint (MoCo, SimSiam, BYOL, SwAV, VICReg, DINO, ...) as a folder."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The checkpoint; no code in it is executed."""
    out: Path
    """Folder for backbone.safetensors and backbone.json."""
    architecture: str | None = None
    """Name for create_backbone; default: inferred from names and shapes."""
    format: str | None = None
    """Format of files with only a network: dino-backbone, vicreg-backbone, barlow-twins-backbone, simclr-converter."""
    prefix: str | None = None
    """For unknown formats: prefix of the names of the backbone's tensors; all other tensors are ignored."""
    image_size: int | None = None
    """Input size in pixels; default: that of the training. Positions of vision transformers are interpolated."""
    mean: tuple[float, ...] | None = None
    """Normalization mean of its images; default: that of the format, or timm's for a bare timm network."""
    std: tuple[float, ...] | None = None
    """Normalization standard deviation, likewise."""
    allow_nonfinite: bool = False
    """Accept tensors with NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a backbone for another library, and print the code that loads it there."""

    backbone: Annotated[str, tyro.conf.Positional]
    """A backbone folder, an official checkpoint, or timm/<name>."""
    format: Literal["torchvision", "timm", "detectron2"]
    out: Path
    """Output file: .pth or .safetensors; .pkl for detectron2."""


def import_checkpoint(options: Import) -> str:
    """Write the backbone folder, and return a line that describes it."""
    from sslzoo.backbones import save_backbone
    from sslzoo.official import load_official_checkpoint

    names = ("format", "prefix", "image_size", "mean", "std", "allow_nonfinite")
    backbone, about = load_official_checkpoint(
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
    from sslzoo.backbones import resolve_backbone
    from sslzoo.export import timm_code, to_detectron2, to_timm, to_torchvision, torchvision_code

    backbone, images = resolve_backbone(options.backbone)
    if options.format == "detectron2":
        to_detectron2(backbone, options.out)
        return _detectron2_lines(backbone, images, options.out)
    convert, code = {"torchvision": (to_torchvision, torchvision_code), "timm": (to_timm, timm_code)}[options.format]
    convert(backbone, options.out)
    read = "safetensors.torch.load_file" if options.out.suffix == ".safetensors" else "torch.load"
    return f'{code(backbone)}\nnetwork.load_state_dict({read}("{options.out}"))'


def _detectron2_lines(backbone: nn.Module, images: dict[str, Any], out: Path) -> str:
    from sslzoo.export import detectron2_settings

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
    options = tyro.cli(commands, prog="sslzoo", description="Import and export backbones.")  # pyright: ignore
    print(import_checkpoint(options) if isinstance(options, Import) else export_backbone(options))


if __name__ == "__main__":
    main()
