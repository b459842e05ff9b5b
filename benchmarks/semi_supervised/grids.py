"""Encoders, protocols and published results with 1% and 10% of the labels.

ImageNet: GenView (https://arxiv.org/abs/2403.12003), table 3, with its own protocol (baselines marked with * were run
by its authors, SwAV's result is from its paper); GenCL, tables 2 and 3, with VICReg's protocol, 100 epochs of
pretraining.
"""

from __future__ import annotations

from ssl_eval import GridCell, ProtocolOverride

LISTS = {"1": "1percent.txt", "10": "10percent.txt"}
"""Lists of labeled images from SimCLR: https://github.com/google-research/simclr, imagenet_subsets."""

# Encoder: top-1 and top-5 with 1%, then with 10%.
GENVIEW = {
    "MoCo v3, 100 epochs": (50.4, 76.6, 66.8, 88.4),
    "MoCo v3 + GenView, 100 epochs": (51.9, 78.5, 68.4, 89.4),
    "MoCo v2": (42.1, 70.9, 60.9, 84.2),
    "MoCo v2 + GenView": (50.6, 78.3, 63.1, 86.0),
    "BYOL": (53.2, 78.8, 68.2, 89.0),
    "BYOL + GenView": (55.6, 81.3, 68.6, 89.5),
    "MoCo v3, 300 epochs": (56.2, 80.7, 69.4, 89.7),
    "MoCo v3 + GenView, 300 epochs": (58.1, 82.5, 70.6, 90.4),
}
GENCL = {
    "VICReg": (42.9, 70.2, 60.7, 84.1),
    "VICReg + GenCL, noise 25%": (43.9, 71.4, 61.1, 84.3),
    "VICReg + GenCL, mask 50%": (48.3, 74.7, 63.3, 85.5),
    "VICReg + GenCL, mask 75%": (48.5, 74.6, 63.2, 85.5),
}
SWAV = {"SwAV, 800 epochs": (53.9, 78.5, 70.2, 89.9)}


def published(family: str, table: dict[str, tuple[float, float, float, float]]) -> list[GridCell]:
    """Return two cells per encoder, with SimCLR's lists."""
    found = []
    for encoder, (one, one_of_five, ten, ten_of_five) in table.items():
        for percent, top1, top5 in (("1", one, one_of_five), ("10", ten, ten_of_five)):
            variant = ProtocolOverride(name=f"{family}-semi-{percent}", labels=f"list {LISTS[percent]}")
            found.append(GridCell(encoder=encoder, variant=variant, published={"top1": top1, "top5": top5}))
    return found


GRIDS: dict[str, list[GridCell]] = {
    "imagenet": [*published("genview", GENVIEW), *published("vicreg", GENCL), *published("swav", SWAV)],
    # Minutes on a CPU, for any encoders of 32 px, with balanced subsets; without published results.
    "small": [
        GridCell(
            encoder=encoder,
            variant=ProtocolOverride(name=f"vicreg-semi-{percent}", batch_size=64, labels="balanced"),
            published={"top1": None},
        )
        for encoder in ("untrained", "hand-made views", "generated views")
        for percent in (1, 10)
    ],
}
