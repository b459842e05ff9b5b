"""A data set of images with instances, packed so that the processes that read it share one copy.

Shapes: n images, m objects of an image.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_eval.coco.annotation_file import naming, read_annotations
from ssl_eval.coco.segmentation import Segmentation, read_segmentation

NOTHING = 1e-5
"""Pixels; a box that is not wider and higher is left out of training, as detectron2 does
(facebookresearch/detectron2@02b5c4e detectron2/data/detection_utils.py filter_empty_instances)."""


@dataclass(frozen=True, eq=False)
class Objects:
    """What there is to learn in an image.

    Attributes:
        file_name: relative to the images' folder.
        boxes: m times left, top, right, bottom, in pixels.
        labels: m classes, counted from 0.
        segmentations: m of them.
    """

    file_name: str
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: tuple[Segmentation, ...]


@dataclass(frozen=True, eq=False)
class CocoInstances:
    """A data set, see open_instances.

    Attributes:
        annotations: the JSON file.
        images: the folder of the images.
        ids: of the images, in ascending order.
        sizes: n times height and width.
        counts: n times how many objects there are to learn.
        categories: ids of the classes, in ascending order, and their names.
        test_objects: number of annotated objects that are not crowds.
        packed: the objects of all images, pickled one after the other.
        ends: n places in it.
    """

    annotations: Path
    images: Path
    ids: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    categories: tuple[tuple[int, str], ...]
    test_objects: int
    packed: torch.Tensor
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def check_test(self) -> None:
        """Check before training that the test set has annotations.

        Raises:
            ValueError: no object is annotated, as in COCO's test sets.
        """
        if not self.test_objects:
            raise ValueError(
                f"expected annotated objects to test on, got none in {self.annotations}; "
                "give a split with annotations, such as val2017"
            )

    def objects(self, row: int) -> Objects:
        """Of one image."""
        start = int(self.ends[row - 1]) if row else 0
        return pickle.loads(self.packed[start : int(self.ends[row])].numpy().tobytes())


def open_instances(annotations: str | Path, images: str | Path) -> CocoInstances:
    """Read and check a JSON file of COCO's instances format.

    Crowds, boxes without area and outlines of fewer than three points are not learned, as in detectron2; a test takes
    them from the file.

    Args:
        annotations: instances_train2017.json or its like.
        images: the folder its file names are relative to.

    Raises:
        ValueError: a file is missing or broken; one line that names it, and the annotation or image by its id.
    """
    annotations, images = Path(annotations), Path(images)
    content = read_annotations(annotations, images)
    places = {identity: place for place, (identity, _) in enumerate(content.categories)}
    blocks, counts, test_objects = [], [], 0
    for image in content.images:
        told = content.annotations.pop(image["id"], [])
        objects = _objects(annotations, image, told, places)
        blocks.append(pickle.dumps(objects, protocol=pickle.HIGHEST_PROTOCOL))
        counts.append(len(objects.labels))
        test_objects += sum(not each.get("iscrowd", 0) for each in told)
    return CocoInstances(
        annotations=annotations,
        images=images,
        ids=np.array([image["id"] for image in content.images], dtype=np.int64),
        sizes=np.array([(image["height"], image["width"]) for image in content.images], dtype=np.int64),
        counts=np.array(counts, dtype=np.int64),
        categories=content.categories,
        test_objects=test_objects,
        packed=torch.frombuffer(bytearray().join(blocks), dtype=torch.uint8),
        ends=np.cumsum([len(block) for block in blocks], dtype=np.int64),
    )


def _objects(
    path: Path, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], places: Mapping[int, int]
) -> Objects:
    height, width = image["height"], image["width"]
    boxes, labels, segmentations = [], [], []
    for each in annotations:
        with naming(path, f"annotation {each['id']} of image {image['id']}"):
            box = _box(each["bbox"], height, width)
            segmentation = read_segmentation(each["segmentation"], height, width)
        kept = box.astype(np.float32)  # where a thin box may become none
        nothing = (kept[2:] - kept[:2]).min() <= NOTHING or segmentation == []
        if not each.get("iscrowd", 0) and not nothing:
            boxes.append(box)
            labels.append(places[each["category_id"]])
            segmentations.append(segmentation)
    return Objects(
        file_name=image["file_name"],
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        segmentations=tuple(segmentations),
    )


def _box(told: object, height: int, width: int) -> np.ndarray:
    """Left, top, right, bottom inside the image, of left, top, width, height."""
    box = np.asarray(told, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"its box {told} is not four finite numbers")
    corners = np.concatenate([box[:2], box[:2] + box[2:]])
    return corners.clip(0, [width, height, width, height])
