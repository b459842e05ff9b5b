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
    annotations: str | Path, found: Sequence[Detection], *, evaluator: str = "faster-coco-eval"
) -> dict[str, dict[str, float]]:
    """Compute AP in percent by task ("box", "mask") and metric; metrics of sizes without objects are absent.

    Args:
        annotations: COCO's JSON of the test set.
        found: the result of detect.
        evaluator: "faster-coco-eval" or "pycocotools", with equal results.

    Raises:
        ValueError: the evaluator is unknown, or no object is annotated.
    """
    if evaluator not in EVALUATORS:
        raise ValueError(f"no evaluator {evaluator!r}: choose one of {', '.join(EVALUATORS)}")
    data, evaluation = _library(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = data(str(annotations))
        for each in truth.anns.values():  # what the evaluators take for granted, and files of others leave out
            each.setdefault("iscrowd", 0)
            each.setdefault("area", each["bbox"][2] * each["bbox"][3])
        if all(each["iscrowd"] for each in truth.anns.values()):
            raise ValueError(f"{annotations} holds no object to find: give a file with annotations that are no crowds")
        return {
            task: _measure(evaluation(truth, _results(truth, data(), found, unused), kind))
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


def _results(truth: Any, empty: Any, found: Sequence[Detection], unused: str) -> Any:
    """Load detections without boxes or without masks: given a box, the evaluator takes the size of a mask from it."""
    if found:
        return truth.loadRes([{key: value for key, value in each.items() if key != unused} for each in found])
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _measure(evaluation: Any) -> dict[str, float]:
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    told = zip(METRICS, evaluation.stats[: len(METRICS)], strict=True)
    return {metric: 100 * float(value) for metric, value in told if value >= 0}  # -1: there is no such object
