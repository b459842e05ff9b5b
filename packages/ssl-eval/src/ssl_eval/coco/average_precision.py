"""COCO's average precision of boxes and masks."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_eval.coco.inference import Detection

METRICS: tuple[str, ...] = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The first six numbers of COCOeval.stats."""
EVALUATORS = ("faster-coco-eval", "pycocotools")


def average_precision(
    annotations: str | Path, detections: Sequence[Detection], *, evaluator: str = "faster-coco-eval"
) -> dict[str, dict[str, float]]:
    """Compute AP in percent by task ("box", "mask") and metric; metrics of sizes without objects are absent.

    Args:
        annotations: COCO's JSON of the test set.
        detections: the result of `detect`.
        evaluator: "faster-coco-eval" or "pycocotools", with equal results.

    Raises:
        ValueError: the evaluator is unknown, or no object is annotated.
    """
    if evaluator not in EVALUATORS:
        raise ValueError(f"expected an evaluator of {', '.join(EVALUATORS)}, got {evaluator!r}")
    data, evaluation = _library(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = data(str(annotations))
        for each in truth.anns.values():  # fields that the evaluators require and third-party files may omit
            each.setdefault("iscrowd", 0)
            each.setdefault("area", each["bbox"][2] * each["bbox"][3])
        if all(each["iscrowd"] for each in truth.anns.values()):
            raise ValueError(f"expected objects that are not crowds in {annotations}, got none")
        return {
            task: _measure(evaluation(truth, _results(truth, data(), detections, unused), kind))
            for task, kind, unused in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox"))
        }


def _library(evaluator: str) -> tuple[Any, Any]:
    """Import the evaluator's classes for data and for evaluation."""
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, COCOeval_faster


def _results(truth: Any, empty: Any, detections: Sequence[Detection], unused: str) -> Any:
    """Load detections without boxes or without masks: given a box, the evaluator derives the mask size from it."""
    if detections:
        return truth.loadRes([{key: value for key, value in each.items() if key != unused} for each in detections])
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _measure(evaluation: Any) -> dict[str, float]:
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)
    return {metric: 100 * float(value) for metric, value in stats if value >= 0}  # -1: there is no such object
