"""Encoders, protocols and published results.

ImageNet: GenView (https://arxiv.org/abs/2403.12003), table 1; baselines marked with * were run by its
authors. DINO: https://github.com/facebookresearch/dino, README.md at 7c446df. VICReg with and without synthetic views:
GenCL, tables 2 and 3, at 100 epochs of pretraining. CIFAR-10 and -100, Tiny
ImageNet: GenView, table 5 (ResNet-18, 500, 500 and 200 epochs).
"""

from __future__ import annotations

from ssl_eval import GridCell, ProtocolOverride


def linear(encoder: str, protocol: str, top1: float | None = None, **changes: int | bool) -> GridCell:
    """Return a cell with a linear protocol."""
    return GridCell(encoder=encoder, variant=ProtocolOverride(name=protocol, **changes), published={"top1": top1})  # pyright: ignore


def knn(encoder: str, top1: float | None = None) -> GridCell:
    """Return a cell with DINO's kNN protocol, k = 20."""
    return GridCell(
        encoder=encoder, variant=ProtocolOverride(name="dino-knn"), published={"top1": top1}, suffix=" k=20"
    )


GRIDS: dict[str, list[GridCell]] = {
    "imagenet": [
        linear("MoCo v2", "genview-linear", 67.5),
        linear("MoCo v2 + GenView", "genview-linear", 70.0),
        linear("SwAV", "genview-linear", 70.5),
        linear("SwAV + GenView", "genview-linear", 71.7),
        linear("SimSiam", "simsiam-linear", 70.0),
        linear("SimSiam + GenView", "simsiam-linear", 72.2),
        linear("BYOL", "genview-linear", 71.8),
        linear("BYOL + GenView", "genview-linear", 73.2),
        linear("MoCo v3, 100 epochs", "genview-linear", 68.9),
        linear("MoCo v3 + GenView, 100 epochs", "genview-linear", 72.7),
        linear("MoCo v3, 300 epochs", "genview-linear", 72.8),
        linear("MoCo v3 + GenView, 300 epochs", "genview-linear", 74.8),
        linear("MoCo v3, ViT-S", "genview-linear-vit", 73.2),
        linear("MoCo v3 + GenView, ViT-S", "genview-linear-vit", 74.5),
        linear("MoCo v3, ViT-B", "genview-linear-vit", 76.7),
        linear("MoCo v3 + GenView, ViT-B", "genview-linear-vit", 77.8),
        linear("VICReg", "vicreg-linear", 65.8),
        linear("VICReg + GenCL, noise 25%", "vicreg-linear", 66.3),
        linear("VICReg + GenCL, mask 75%", "vicreg-linear", 68.5),
        knn("DINO, ViT-S/16", 74.5),
        linear("DINO, ViT-S/16", "dino-linear", 77.0),
        knn("DINO, ViT-B/16", 76.1),
        linear("DINO, ViT-B/16", "dino-linear-vit-b", 78.2),
        knn("DINO, ResNet-50", 67.5),
        linear("DINO, ResNet-50", "dino-linear-resnet", 75.3),
    ],
    "cifar10": [
        linear("MoCo v2 + GenView", "genview-cifar-linear", 93.00),
        linear("BYOL + GenView", "genview-cifar-linear", 93.56),
    ],
    "cifar100": [
        linear("MoCo v2 + GenView", "genview-cifar-linear", 67.49),
        linear("BYOL + GenView", "genview-cifar-linear", 67.53),
    ],
    "tinyimagenet": [
        linear("MoCo v2 + GenView", "genview-cifar-linear", 56.76),
        linear("BYOL + GenView", "genview-cifar-linear", 54.79),
    ],
    # Minutes on a CPU, for any encoders of 32 px; without published results.
    "small": [
        cell
        for encoder in ("untrained", "hand-made views", "generated views")
        for cell in (
            knn(encoder),
            linear(encoder, "genview-cifar-linear", cached=True),
            linear(encoder, "genview-cifar-linear", epochs=5),
        )
    ],
}
