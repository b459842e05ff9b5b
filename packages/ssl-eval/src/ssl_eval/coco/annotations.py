"""Read and check COCO's instance annotations, and pack them so that worker processes share one copy.

https://cocodataset.org/#format-data

Shapes: n images, m instances of an image.
"""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genviews_core.listing import visible
from ssl_eval.coco.masks import Segmentation, read_segmentation


@dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """Content of an annotation file, validated.

    Attributes:
        images: dicts with id, file_name, height and width, sorted by id.
        annotations: annotations by image id.
        categories: (id, name), sorted by id.
    """

    images: Sequence[Mapping[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    categories: tuple[tuple[int, str], ...]


def read_annotations(path: Path, folder: Path) -> AnnotationFile:
    """Read and validate the file at `path`, whose images are in `folder`.

    Raises:
        ValueError: a file is missing or invalid; the message names it, and the annotation or image by its id.
    """
    content = _load(path)
    images = sorted(content["images"], key=lambda image: image["id"])
    known = {image["id"] for image in images}
    if len(known) < len(images):
        raise ValueError(f"{path}: expected unique image ids, got a duplicate")
    _check_files(path, folder, images)
    categories = sorted((each["id"], str(each.get("name", each["id"]))) for each in content["categories"])
    grouped = _by_image(path, content.pop("annotations"), known, {identity for identity, _ in categories})
    return AnnotationFile(images=images, annotations=grouped, categories=tuple(categories))


@contextmanager
def naming(path: Path, location: str) -> Iterator[None]:
    """Prefix errors of the block with the file and the location in it.

    Raises:
        ValueError: instead of a KeyError, TypeError, ValueError or OverflowError.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}, {location}: expected the field {error.args[0]}, got none") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}, {location}: {str(error).splitlines()[0]}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror}); give COCO's instances file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a complete JSON file ({error}); download it again") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise ValueError(f"expected COCO's instances format (lists of images, annotations, categories), got {path}")
    if not content["images"] or not content["categories"]:
        raise ValueError(f"expected images and categories in {path}, got none")
    for number, each in enumerate(content["images"]):
        if not _is_image(each):
            raise ValueError(f"{path}, entry {number} of images: expected integers id, height, width, and a file_name")
    for number, each in enumerate(content["categories"]):
        if not isinstance(each, dict) or not isinstance(each.get("id"), int):
            raise ValueError(f"{path}, entry {number} of categories: expected a dictionary with an integer id")
    return content


def _is_image(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return False
    sizes = [entry.get("height"), entry.get("width")]
    return isinstance(entry.get("id"), int) and all(isinstance(size, int) and size > 0 for size in sizes)


def _check_files(path: Path, folder: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """Check that all files exist, by listing each folder once: checking single files takes minutes on network disks."""
    listed: dict[Path, set[str]] = {}
    for image in images:
        file = folder / image["file_name"]
        if file.parent not in listed:
            listed[file.parent] = set()
            if file.parent.is_dir():
                listed[file.parent] = {entry.name for entry in visible(file.parent)}
        if file.name not in listed[file.parent]:
            raise ValueError(f"{file}, image {image['id']} of {path}, is missing")


def _by_image(
    path: Path, annotations: Sequence[Any], images: set[int], categories: set[int]
) -> dict[int, list[dict[str, Any]]]:
    """Group annotations by image, after checking their ids and references."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    numbers: set[int] = set()
    for each in annotations:
        with naming(path, f"annotation {each.get('id') if isinstance(each, dict) else each}"):
            if each["id"] in numbers or each["id"] == 0:  # to the evaluators 0 is no annotation
                raise ValueError(f"expected a unique id above 0, got {each['id']}; number annotations from 1")
            numbers.add(each["id"])
            if each["image_id"] not in images:
                raise ValueError(f"expected an image_id of the images, got {each['image_id']}")
            if each["category_id"] not in categories:
                raise ValueError(f"expected a category_id of the categories, got {each['category_id']}")
        grouped.setdefault(each["image_id"], []).append(each)
    return grouped


MIN_BOX_SIDE = 1e-5
"""Side in pixels; a box that is not wider and higher is left out of training, as detectron2 does
(facebookresearch/detectron2@02b5c4e detectron2/data/detection_utils.py filter_empty_instances)."""


@dataclass(frozen=True, eq=False)
class Instances:
    """Training targets of an image.

    Attributes:
        file_name: relative to the images' folder.
        boxes: [m, 4], left, top, right, bottom, in pixels.
        labels: [m], classes from 0.
        segmentations: m masks.
    """

    file_name: str
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: tuple[Segmentation, ...]


@dataclass(frozen=True, eq=False)
class CocoInstances:
    """A data set of images with instances; see load_instances.

    Attributes:
        annotations: the JSON file.
        images: the folder of the images.
        ids: image ids, sorted.
        sizes: [n, 2], height and width.
        counts: [n], number of training targets.
        categories: (id, name) of the classes, sorted by id.
        test_objects: number of annotated objects that are not crowds.
        packed: the pickled targets of all images, concatenated.
        ends: [n], end of each image's targets in `packed`.
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

    def objects(self, row: int) -> Instances:
        """Return the targets of one image."""
        start = int(self.ends[row - 1]) if row else 0
        return pickle.loads(self.packed[start : int(self.ends[row])].numpy().tobytes())


def load_instances(annotations: str | Path, images: str | Path) -> CocoInstances:
    """Read and check a JSON file of COCO's instances format.

    Crowds, boxes without area and polygons of fewer than three points are not trained on, as in detectron2; the test
    reads all annotations from the file.

    Args:
        annotations: a file like instances_train2017.json.
        images: the folder its file names are relative to.

    Raises:
        ValueError: a file is missing or invalid; the message names it, and the annotation or image by its id.
    """
    annotations, images = Path(annotations), Path(images)
    content = read_annotations(annotations, images)
    labels = {identity: label for label, (identity, _) in enumerate(content.categories)}
    blocks, counts, test_objects = [], [], 0
    for image in content.images:
        entries = content.annotations.pop(image["id"], [])
        objects = _objects(annotations, image, entries, labels)
        blocks.append(pickle.dumps(objects, protocol=pickle.HIGHEST_PROTOCOL))
        counts.append(len(objects.labels))
        test_objects += sum(not each.get("iscrowd", 0) for each in entries)
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
    path: Path, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]
) -> Instances:
    height, width = image["height"], image["width"]
    boxes, labels, segmentations = [], [], []
    for each in annotations:
        with naming(path, f"annotation {each['id']} of image {image['id']}"):
            box = _box(each["bbox"], height, width)
            segmentation = read_segmentation(each["segmentation"], height, width)
        kept = box.astype(np.float32)  # where a thin box may become none
        is_empty = (kept[2:] - kept[:2]).min() <= MIN_BOX_SIDE or segmentation == []
        if not each.get("iscrowd", 0) and not is_empty:
            boxes.append(box)
            labels.append(label_of[each["category_id"]])
            segmentations.append(segmentation)
    return Instances(
        file_name=image["file_name"],
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        segmentations=tuple(segmentations),
    )


def _box(entry: object, height: int, width: int) -> np.ndarray:
    """Convert left, top, width, height to left, top, right, bottom, clipped to the image."""
    box = np.asarray(entry, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"expected a box of four finite numbers, got {entry}")
    corners = np.concatenate([box[:2], box[:2] + box[2:]])
    return corners.clip(0, [width, height, width, height])
