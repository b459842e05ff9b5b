"""COCO's JSON of instances (https://cocodataset.org/#format-data), read and checked before anything is learned."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genviews_core.listing import visible


@dataclass(frozen=True, kw_only=True)
class AnnotationFile:
    """What it holds, whole and consistent.

    Attributes:
        images: with id, file_name, height and width, by ascending id.
        annotations: of each image, by its id.
        categories: ids and names, by ascending id.
    """

    images: Sequence[Mapping[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    categories: tuple[tuple[int, str], ...]


def read_annotations(path: Path, folder: Path) -> AnnotationFile:
    """The file at `path`, whose images are in `folder`.

    Raises:
        ValueError: a file is missing or broken; one line that names it, and the annotation or image by its id.
    """
    content = _load(path)
    images = sorted(content["images"], key=lambda image: image["id"])
    known = {image["id"] for image in images}
    if len(known) < len(images):
        raise ValueError(f"{path}: two images have one id")
    _check_files(path, folder, images)
    categories = sorted((each["id"], str(each.get("name", each["id"]))) for each in content["categories"])
    grouped = _by_image(path, content.pop("annotations"), known, {identity for identity, _ in categories})
    return AnnotationFile(images=images, annotations=grouped, categories=tuple(categories))


@contextmanager
def naming(path: Path, place: str) -> Iterator[None]:
    """Whatever is wrong inside is told with the file and the place in it.

    Raises:
        ValueError: for a value that is missing, of a wrong type or wrong.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}, {place}: it has no {error.args[0]}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}, {place}: {str(error).splitlines()[0]}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): give COCO's instances file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no whole JSON file ({error}): fetch it again") from None
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise ValueError(f"{path} is not in COCO's instances format: it needs lists of images, annotations, categories")
    if not content["images"] or not content["categories"]:
        raise ValueError(f"{path} has no images or no categories")
    for number, each in enumerate(content["images"]):
        if not _is_image(each):
            told = "it needs id, height and width in whole numbers, and file_name"
            raise ValueError(f"{path}, entry {number} of images: {told}")
    for number, each in enumerate(content["categories"]):
        if not isinstance(each, dict) or not isinstance(each.get("id"), int):
            raise ValueError(f"{path}, entry {number} of categories: it needs an id, a whole number")
    return content


def _is_image(told: object) -> bool:
    if not isinstance(told, dict) or not isinstance(told.get("file_name"), str) or not isinstance(told.get("id"), int):
        return False
    return all(isinstance(told.get(edge), int) and told[edge] > 0 for edge in ("height", "width"))


def _check_files(path: Path, folder: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """One listing a folder: a look at each file takes minutes where the disk is far."""
    listed: dict[Path, set[str]] = {}
    for image in images:
        file = folder / image["file_name"]
        if file.parent not in listed:
            listed[file.parent] = set()
            if file.parent.is_dir():
                listed[file.parent] = {entry.name for entry in visible(file.parent)}
        if file.name not in listed[file.parent]:
            raise ValueError(f"{file} is missing, which {path} tells of as image {image['id']}")


def _by_image(
    path: Path, annotations: Sequence[Any], images: set[int], categories: set[int]
) -> dict[int, list[dict[str, Any]]]:
    """Each has an id of its own and a place."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    numbers: set[int] = set()
    for each in annotations:
        with naming(path, f"annotation {each.get('id') if isinstance(each, dict) else each}"):
            if each["id"] in numbers or each["id"] == 0:  # to the evaluators 0 is no annotation
                raise ValueError("its id is 0 or another's: number annotations from 1")
            numbers.add(each["id"])
            if each["image_id"] not in images:
                raise ValueError(f"there is no image {each['image_id']}")
            if each["category_id"] not in categories:
                raise ValueError(f"there is no category {each['category_id']}")
        grouped.setdefault(each["image_id"], []).append(each)
    return grouped
