"""Figures of both evaluators on the same predictions, of good ones, noisy ones and none."""

import json

import numpy as np
import pytest

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from pycocotools import mask as masks

from ssl_eval.coco import EVALUATORS, average_precision


def predictions(annotations, noise: float) -> list[dict]:
    """The truth, moved by `noise` of an object's side; where there is noise some classes and scores are wrong."""
    content = json.loads(annotations.read_text())
    sizes = {each["id"]: (each["height"], each["width"]) for each in content["images"]}
    rng = np.random.default_rng(0)
    found = []
    for entry in content["annotations"]:
        height, width = sizes[entry["image_id"]]
        for _ in range(1 + 2 * (noise > 0)):
            shift = rng.normal(0, noise, 2) * entry["bbox"][2:]
            corners = np.reshape(entry["segmentation"][0], (-1, 2)) + shift
            outline = masks.frPyObjects([corners.reshape(-1).tolist()], height, width)[0]
            wrong = noise > 0 and rng.random() < 0.2
            category = 11 - entry["category_id"] if wrong else entry["category_id"]
            found.append(
                {"image_id": entry["image_id"], "category_id": category,
                 "score": float(rng.random()), "bbox": [*(entry["bbox"][:2] + shift).tolist(), *entry["bbox"][2:]],
                 "segmentation": {"size": outline["size"], "counts": outline["counts"].decode()}}
            )  # fmt: skip
    return found


@pytest.fixture
def annotations(write_coco, tmp_path):
    return write_coco(tmp_path / "coco", images=9) / "annotations" / "instances_val2017.json"


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_truth_is_all_right_and_nothing_all_wrong(annotations, evaluator):
    best = average_precision(annotations, predictions(annotations, 0), evaluator=evaluator)
    assert all(value == pytest.approx(100) for metrics in best.values() for value in metrics.values())
    assert "AP" in best["box"] and "APl" not in best["box"]  # none of these objects is large
    worst = average_precision(annotations, [], evaluator=evaluator)
    assert {task: set(metrics) for task, metrics in worst.items()} == {task: set(best[task]) for task in best}
    assert all(value == 0 for metrics in worst.values() for value in metrics.values())


def test_both_evaluators_agree(annotations):
    found = predictions(annotations, 0.12)
    fast, slow = (average_precision(annotations, found, evaluator=evaluator) for evaluator in EVALUATORS)
    assert 5 < slow["box"]["AP"] < 80 and slow["box"]["AP"] != slow["mask"]["AP"]
    assert {task: pytest.approx(metrics, abs=1e-9) for task, metrics in slow.items()} == fast


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_areas_and_crowds_may_be_left_out(annotations, evaluator):
    found = predictions(annotations, 0)
    content = json.loads(annotations.read_text())
    for each in content["annotations"]:
        if not each["iscrowd"]:
            del each["iscrowd"], each["area"]
    annotations.write_text(json.dumps(content))
    assert average_precision(annotations, found, evaluator=evaluator)["box"]["AP"] > 99


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_annotations_of_only_crowds_are_rejected(annotations, evaluator):
    """The evaluators would return -1 for every metric."""
    content = json.loads(annotations.read_text())
    for each in content["annotations"]:
        each["iscrowd"] = 1
    annotations.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"not crowds in .*instances_val2017\.json, got none"):
        average_precision(annotations, [], evaluator=evaluator)


def test_there_is_no_other(annotations):
    with pytest.raises(ValueError, match="got 'coco'"):
        average_precision(annotations, [], evaluator="coco")
