"""Slides cut into tiles, with their classes from a CSV file (PANDA) or from class folders (BRACS, BRIGHT).

A slide is a folder of tile images, such as ROOT/<slide>/<tile>.png, or a file with their embeddings,
ROOT/<slide>.safetensors.

https://www.kaggle.com/c/prostate-cancer-grade-assessment/data, https://www.bracs.icar.cnr.it/details
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from genviews_core.images import SUFFIXES
from genviews_core.listing import images_in, visible
from ssl_eval.text import read_text

EMBEDDED = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Slide:
    """One slide.

    Attributes:
        name: path of its tile folder relative to the root, POSIX.
        place: folder of its tiles, or file of their embeddings.
        label: index of its class.
        origin: provider, if known; held-out sets contain slides of all providers.
    """

    name: str
    place: Path
    label: int
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class SlideSet:
    """Slides with their classes.

    Attributes:
        slides: in the order of the CSV file, or of their names.
        classes: names of the classes.
        graded: whether the classes are ordinal grades 0, 1, 2, ...
    """

    slides: tuple[Slide, ...]
    classes: tuple[str, ...]
    graded: bool

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Return the labels of all slides."""
        return torch.tensor([slide.label for slide in self.slides])

    def take(self, rows: Int[Tensor, " m"]) -> "SlideSet":
        """Return a subset of the slides, with all classes."""
        return replace(self, slides=tuple(self.slides[row] for row in rows.tolist()))


def is_tile(path: Path) -> bool:
    """Return whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES


def tiles_of(folder: Path) -> list[Path]:
    """Return the tiles of a slide, sorted by name."""
    return images_in(folder)


def place_of(root: Path, name: str) -> Path | None:
    """Return the folder of tiles or the file of embeddings; None if there is neither."""
    folder, file = root / name, root / f"{name}{EMBEDDED}"
    if folder.is_dir() and images_in(folder):
        return folder
    return file if file.is_file() else None


def slides_of_csv(
    path: Path, root: Path, *, column: str = "isup_grade", classes: Sequence[str] | None = None
) -> SlideSet:
    """Read slides from a CSV file with the columns `image_id` and optionally `data_provider`, like PANDA's.

    Args:
        path: the CSV file.
        root: folder of the slides.
        column: column of the classes; integers are grades from 0.
        classes: classes of the training slides; None for those in the CSV file.

    Raises:
        ValueError: no such file or column, a slide without class or twice, a class without slides, or not of
            `classes`, a slide without tiles.
    """
    rows = _rows(path, column)
    values = [value for _, value, _ in rows]
    graded = all(value.isdecimal() for value in (values if classes is None else classes))
    known = _classes(values, graded) if classes is None else tuple(classes)
    if classes is None and (unused := [name for name in known if name not in values]):
        raise ValueError(f"expected slides of every {column} up to {known[-1]} in {path}, got none of {unused[0]}")
    places, lacking = {}, []
    for name, value, _ in rows:
        if value not in known:
            raise ValueError(f"expected a {column} of the training slides for {name} in {path}, got {value}")
        places[name] = place_of(root, name)
        if places[name] is None:
            lacking.append(name)
    if lacking:
        raise ValueError(
            f"expected tiles of slide {lacking[0]} of {path} in {root}, got none ({len(lacking)} such slides); "
            "cut its tiles, or remove it from the CSV"
        )
    slides = [
        Slide(name=name, place=places[name], label=known.index(value), origin=origin) for name, value, origin in rows
    ]
    return SlideSet(slides=tuple(slides), classes=known, graded=graded)


def check_all_labeled(root: Path, *sets: SlideSet) -> None:
    """Raise ValueError if the root contains a slide without a label."""
    named = {slide.name for each in sets for slide in each.slides}
    here = sorted(entry.stem if entry.suffix == EMBEDDED else entry.name for entry in visible(root))
    unlabeled = [name for name in here if name not in named and place_of(root, name) is not None]
    if unlabeled:
        raise ValueError(
            f"expected a label of slide {unlabeled[0]} in {root}, got none ({len(unlabeled)} such slides); "
            "add it to the CSV, or ignore unlabeled slides"
        )


def _rows(path: Path, column: str) -> list[tuple[str, str, str]]:
    """Return name, class and origin of each row."""
    if not path.is_file():
        raise ValueError(f"expected a CSV of slides at {path}, got no file")
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.DictReader(file)
        for needed in ("image_id", column):
            if needed not in (reader.fieldnames or ()):
                raise ValueError(
                    f"expected a column {needed} in {path}, got {', '.join(reader.fieldnames or ('nothing',))}"
                )
        rows = [(line["image_id"], line[column] or "", line.get("data_provider") or "") for line in reader]
    seen: set[str] = set()
    for name, value, _ in rows:
        if not value:
            raise ValueError(f"expected a {column} for slide {name} in {path}, got none")
        if name in seen:
            raise ValueError(f"expected each slide once in {path}, got {name} twice")
        seen.add(name)
    if not rows:
        raise ValueError(f"expected slides in {path}, got none")
    return rows


def _classes(values: Sequence[str], graded: bool) -> tuple[str, ...]:
    return tuple(map(str, range(max(map(int, values)) + 1))) if graded else tuple(sorted(set(values)))


def slides_of_folders(
    root: Path, split: str, *, level: str = "subtype", classes: Sequence[str] | None = None
) -> SlideSet:
    """Read slides from ROOT/SPLIT/<class>/<slide>, or from ROOT/SPLIT/<group>/<subtype>/<slide>.

    Args:
        root: the data set.
        split: train, test or the like.
        level: "subtype" for the parent folder of a slide, "group" for the first folder.
        classes: classes of the training slides; None for the folders' names.

    Raises:
        ValueError: no such folder, a folder with nothing in it, a slide outside class folders or of a class that is
            not of `classes`.
    """
    folder = root / split
    if not folder.is_dir():
        raise ValueError(f"expected slides in ROOT/{split}/<class>/<slide>/<tile>, got no folder {folder}")
    listed = list(_walk(folder, ()))
    which = {"group": 0, "subtype": -2}[level]
    known = tuple(sorted({parts[which] for parts, _ in listed})) if classes is None else tuple(classes)
    slides = []
    for parts, place in listed:
        if parts[which] not in known:
            raise ValueError(f"expected a class of the training slides, got {parts[which]} for {place}")
        slides.append(Slide(name="/".join((split, *parts)), place=place, label=known.index(parts[which])))
    return SlideSet(slides=tuple(slides), classes=known, graded=False)


def _walk(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield the slides below a folder with the components of their paths."""
    entries = visible(folder)
    if any(is_tile(entry) for entry in entries):
        yield _inside_classes(parts, folder), folder
        return
    slides = [entry for entry in entries if entry.suffix == EMBEDDED]
    folders = [entry for entry in entries if entry.is_dir()]
    if not slides and not folders:
        raise ValueError(f"expected tiles or slides in {folder}, got none; fill it, or remove it")
    for entry in slides:
        yield _inside_classes((*parts, entry.stem), entry), entry
    for entry in folders:
        yield from _walk(entry, (*parts, entry.name))


def _inside_classes(parts: tuple[str, ...], place: Path) -> tuple[str, ...]:
    if len(parts) < 2:
        raise ValueError(f"expected tiles in <class>/<slide>, got {place} without a class folder")
    return parts
