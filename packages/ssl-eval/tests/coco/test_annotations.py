"""What COCO's file tells is kept; what is broken is told in one line with file and id."""

import json

import numpy as np
import pytest

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from pycocotools import mask as masks

from ssl_eval.coco import load_instances
from ssl_eval.coco.masks import draw


def rewrite(coco, change) -> None:
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def opened(coco):
    return load_instances(coco / "annotations" / "instances_train2017.json", coco / "train2017")


def test_what_is_told_is_kept(coco):
    instances = opened(coco)
    assert instances.categories == ((3, "rectangle"), (8, "triangle"))
    assert instances.ids.tolist() == list(range(100, 106)) and instances.counts.tolist() == [2] * 6
    told = json.loads(instances.annotations.read_text())["annotations"]
    for row in range(6):
        objects = instances.objects(row)
        height, width = instances.sizes[row].tolist()
        assert objects.file_name == f"{row:03}.png" and objects.labels.tolist() == [0, 1]
        for box, segmentation, entry in zip(
            objects.boxes, objects.segmentations, told[2 * row : 2 * row + 2], strict=True
        ):
            left, top, wide, high = entry["bbox"]
            assert box.tolist() == [left, top, left + wide, top + high]
            assert abs(draw(segmentation, height, width).sum() - entry["area"]) < 0.1 * entry["area"]


def test_crowds_and_what_has_no_area_is_not_learned(coco):
    def change(content):
        first, second, third, fourth = content["annotations"][:4]
        picture = content["images"][0]
        crowd = np.zeros((picture["height"], picture["width"]), np.uint8, order="F")
        crowd[:9] = 1
        outline = masks.encode(crowd)
        first |= {"iscrowd": 1, "segmentation": {"size": outline["size"], "counts": outline["counts"].decode()}}
        second["bbox"][2] = 0
        third["segmentation"] = [[1, 2, 3, 4]]
        fourth["segmentation"].append([1, 2, 3, 4])

    rewrite(coco, change)
    instances = opened(coco)
    assert instances.counts.tolist() == [0, 1, 2, 2, 2, 2]
    assert len(instances.objects(1).segmentations[0]) == 1


@pytest.mark.parametrize("crowds", [True, False])
def test_test_set_without_objects_is_rejected(coco, crowds):
    """COCO's test sets have no annotations; the evaluators ignore crowds."""
    opened(coco).check_test()

    def change(content):
        if not crowds:
            content["annotations"] = []
        for each in content["annotations"]:
            each["iscrowd"] = 1

    rewrite(coco, change)
    instances = opened(coco)
    assert len(instances) == 6 and instances.test_objects == 0
    with pytest.raises(
        ValueError, match=r"expected annotated objects to test on, got none in .*\.json; give a split with"
    ):
        instances.check_test()


@pytest.mark.parametrize("packed", [True, False])
def test_run_lengths_are_masks(coco, packed):
    mask = np.zeros((96, 72), np.uint8, order="F")
    mask[10:40, 20:30] = mask[50:60, 5:7] = 1
    outline = masks.encode(mask)
    told = {"size": [96, 72], "counts": outline["counts"].decode()}
    if not packed:
        flat = np.diff(np.flatnonzero(np.diff(mask.flatten(order="F"), prepend=0, append=0)), prepend=0).tolist()
        told["counts"] = [*flat, mask.size - sum(flat)]
    rewrite(coco, lambda content: content["annotations"][0].update(segmentation=told))
    assert np.array_equal(draw(opened(coco).objects(0).segmentations[0], 96, 72), mask)


def packed_counts(text: str) -> dict:
    return {"segmentation": {"size": [96, 72], "counts": text}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": 0}, "annotation 0: expected a unique id above 0"),
        ({"id": 2}, "annotation 2: expected a unique id above 0"),
        ({"image_id": 7}, "annotation 1: expected an image_id of the images, got 7"),
        ({"category_id": 1}, "annotation 1: expected a category_id of the categories, got 1"),
        ({"bbox": [1, 2, 3]}, "annotation 1 of image 100: expected a box of four finite numbers"),
        (
            {"bbox": [1, 2, 3, float("nan")]},
            "annotation 1 of image 100: expected a box .*, got .*nan",
        ),
        ({"bbox": "none"}, "annotation 1 of image 100"),
        (
            {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
            "annotation 1 of image 100: expected polygons of pairs",
        ),
        ({"segmentation": [["a", "b"]]}, "annotation 1 of image 100"),
        ({"segmentation": []}, r"annotation 1 of image 100: expected a segmentation .*, got \[\]"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"mask of the image's size \[96, 72\], got \[9, 9\]"),
        ({"segmentation": {"size": [96, 72], "counts": [5, 6]}}, "expected run lengths of 6912 pixels"),
        (packed_counts("abc"), "expected run lengths of 6912 pixels"),
        (packed_counts("\x00"), "expected run lengths of 6912 pixels"),
        (packed_counts("o"), "expected run lengths of 6912 pixels"),
    ],
)
def test_a_broken_annotation_is_one_line(coco, entry, message):
    rewrite(coco, lambda content: content["annotations"][0].update(entry))
    with pytest.raises(ValueError, match=message) as error:
        opened(coco)
    assert "instances_train2017.json" in str(error.value) and "\n" not in str(error.value)


def test_a_broken_file_is_one_line(coco):
    path = coco / "annotations" / "instances_train2017.json"
    whole = path.read_text()
    cases = {
        whole[: len(whole) // 2]: "not a complete JSON file",
        "[]": "expected COCO's instances format",
        whole.replace('"category_id"', '"kind"', 1): "annotation 1: expected the field category_id",
        whole.replace('"bbox"', '"box"', 1): "annotation 1 of image 100: expected the field bbox",
        whole.replace('"height": 96', '"height": 0', 1): "entry 0 of images: expected integers id, height, width",
        whole.replace("000.png", "other.png", 1): "other.png, image 100 of .*, is missing",
        whole.replace('"id": 101', '"id": 100', 1): "expected unique image ids",
    }
    for text, message in cases.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            opened(coco)
        assert "instances_train2017.json" in str(error.value) and "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(ValueError, match="cannot read"):
        opened(coco)
