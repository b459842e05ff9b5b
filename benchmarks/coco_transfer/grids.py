"""Published results of Mask R-CNN on COCO, by variant and schedule.

GenView (https://arxiv.org/abs/2403.12003), section 4.1: ResNet-50-FPN, 200 epochs of pretraining on ImageNet, 90,000
steps of 16 images with detectron2; baselines marked * were run by its authors. Neither paper nor code specifies where
batch norms are; DenseCL, in the same table, has them in the heads as well, so the results are listed with `fpn-heads`.
"""

from __future__ import annotations

from ssl_eval import GridCell, ProtocolOverride
from ssl_eval.coco import METRICS

TASKS = ("box", "mask")
HALVES = ("train2017", "val2017")
GENVIEW = {
    "ReSim": ((39.8, 60.2, 43.5), (36.0, 57.1, 38.6)),
    "DenseCL": ((40.3, 59.9, 44.3), (36.4, 57.0, 39.2)),
    "SimSiam": ((38.5, 57.8, 42.3), (34.7, 54.9, 37.1)),
    "SimSiam + GenView": ((39.1, 58.5, 43.0), (35.2, 55.9, 37.7)),
    "MoCo v2": ((39.7, 59.4, 43.6), (35.8, 56.5, 38.4)),
    "MoCo v2 + FreeATM": ((40.1, None, None), (None, None, None)),
    "MoCo v2 + GenView": ((40.5, 60.0, 44.3), (36.3, 57.1, 38.9)),
    "BYOL": ((40.6, 60.9, 44.5), (36.7, 58.0, 39.4)),
    "BYOL + GenView": ((41.2, 61.5, 44.9), (37.0, 58.4, 39.7)),
}
"""Published AP, AP50 and AP75 of boxes and of masks."""
PUBLISHED = {"detectron2 fpn-heads 1x": GENVIEW}


def cells(protocol: str, task: str, encoders: list[str], *, halves: tuple[str, str] = HALVES) -> list[GridCell]:
    """Return a cell per published encoder and per encoder of ours; published results only for the same protocol.

    Args:
        protocol: label of the protocol in results.
        task: key of TASKS.
        encoders: names of our encoders.
        halves: splits for training and evaluation.
    """
    published = PUBLISHED.get(protocol, {}) if halves == HALVES else {}
    rows = []
    for encoder in dict.fromkeys([*published, *encoders]):
        told = published.get(encoder, ((), ()))[TASKS.index(task)]
        figures = dict.fromkeys(METRICS) | dict(zip(METRICS, told, strict=False))
        rows.append(GridCell(encoder=encoder, variant=ProtocolOverride(name=protocol), published=figures))
    return rows
