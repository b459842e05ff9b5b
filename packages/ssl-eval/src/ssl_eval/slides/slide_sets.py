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
        name: of its tiles' folder under the root, POSIX.
        place: the folder of its tiles, or the file of their embeddings.
        label: the position of its class among the classes.
        origin: who provided it, where that is known; a held-out share has slides of all origins.
    """

    name: str
    place: Path
    label: int
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class SlideSet:
    """Slides and what their labels mean.

    Attributes:
        slides: in the order of the CSV, or of their names.
        classes: the names.
        graded: whether the classes are the grades 0, 1, 2 and so on, so that an error of two counts more than of one.
    """

    slides: tuple[Slide, ...]
    classes: tuple[str, ...]
    graded: bool

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Of all slides."""
        return torch.tensor([slide.label for slide in self.slides])

    def take(self, rows: Int[Tensor, " m"]) -> "SlideSet":
        """Some of the slides; the classes stay as they are."""
        return replace(self, slides=tuple(self.slides[row] for row in rows.tolist()))


def is_tile(path: Path) -> bool:
    """Whether a file's name is that of a tile."""
    return path.suffix.lower() in SUFFIXES


def tiles_of(folder: Path) -> list[Path]:
    """A slide's tiles, by name."""
    return images_in(folder)


def place_of(root: Path, name: str) -> Path | None:
    """The folder of tiles or the file of embeddings; None where there is neither."""
    folder, file = root / name, root / f"{name}{EMBEDDED}"
    if folder.is_dir() and images_in(folder):
        return folder
    return file if file.is_file() else None


def slides_of_csv(
    path: Path, root: Path, *, column: str = "isup_grade", classes: Sequence[str] | None = None
) -> SlideSet:
    """The slides that a CSV lists by `image_id`, as PANDA's train.csv does; `data_provider` is their origin.

    Args:
        path: the CSV.
        root: holds the slides.
        column: of the classes; whole numbers are grades from 0.
        classes: those of the training slides; the CSV's own where None.

    Raises:
        ValueError: no such file or column, a slide without class or twice, a class without slides, or not of
            `classes`, a slide without tiles.
    """
    rows = _rows(path, column)
    values = [value for _, value, _ in rows]
    graded = all(value.isdecimal() for value in (values if classes is None else classes))
    known = _classes(values, graded) if classes is None else tuple(classes)
    if classes is None and (unused := [name for name in known if name not in values]):
        raise ValueError(f"{path} has no slide of {column} {unused[0]}, but of others up to {known[-1]}: add some")
    places, lacking = {}, []
    for name, value, _ in rows:
        if value not in known:
            raise ValueError(f"{path} gives slide {name} the {column} {value}, which no training slide has")
        places[name] = place_of(root, name)
        if places[name] is None:
            lacking.append(name)
    if lacking:
        raise ValueError(
            f"{path} lists slide {lacking[0]}, of which {root} holds no tiles ({len(lacking)} such slides): "
            "cut its tiles, or take it out of the CSV"
        )
    slides = [
        Slide(name=name, place=places[name], label=known.index(value), origin=origin) for name, value, origin in rows
    ]
    return SlideSet(slides=tuple(slides), classes=known, graded=graded)


def check_all_labeled(root: Path, *sets: SlideSet) -> None:
    """Raises ValueError where the root holds a slide that no CSV labels."""
    named = {slide.name for each in sets for slide in each.slides}
    here = sorted(entry.stem if entry.suffix == EMBEDDED else entry.name for entry in visible(root))
    unlabelled = [name for name in here if name not in named and place_of(root, name) is not None]
    if unlabelled:
        raise ValueError(
            f"{root} holds tiles of slide {unlabelled[0]}, which has no label ({len(unlabelled)} such slides): "
            "add it to the CSV, or say that unlabelled slides are to be left out"
        )


def _rows(path: Path, column: str) -> list[tuple[str, str, str]]:
    """Name, class and origin of each line."""
    if not path.is_file():
        raise ValueError(f"no CSV of slides at {path}")
    with io.StringIO(read_text(path), newline="") as file:
        reader = csv.DictReader(file)
        for needed in ("image_id", column):
            if needed not in (reader.fieldnames or ()):
                raise ValueError(f"{path} has no column {needed}, but {', '.join(reader.fieldnames or ('nothing',))}")
        rows = [(line["image_id"], line[column] or "", line.get("data_provider") or "") for line in reader]
    seen: set[str] = set()
    for name, value, _ in rows:
        if not value:
            raise ValueError(f"{path} gives slide {name} no {column}")
        if name in seen:
            raise ValueError(f"{path} lists slide {name} twice")
        seen.add(name)
    if not rows:
        raise ValueError(f"{path} lists no slide")
    return rows


def _classes(values: Sequence[str], graded: bool) -> tuple[str, ...]:
    return tuple(map(str, range(max(map(int, values)) + 1))) if graded else tuple(sorted(set(values)))


def slides_of_folders(
    root: Path, split: str, *, level: str = "subtype", classes: Sequence[str] | None = None
) -> SlideSet:
    """The slides of ROOT/SPLIT/<class>/<slide>, or of ROOT/SPLIT/<group>/<subtype>/<slide>.

    Args:
        root: the data set.
        split: train, test or the like.
        level: "subtype" for the folder that a slide lies in, "group" for the first one.
        classes: those of the training slides; the folders' own where None.

    Raises:
        ValueError: no such folder, a folder with nothing in it, a slide outside class folders or of a class that is
            not of `classes`.
    """
    folder = root / split
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}: slides are read from ROOT/{split}/<class>/<slide>/<tile>")
    found = list(_walk(folder, ()))
    which = {"group": 0, "subtype": -2}[level]
    known = tuple(sorted({parts[which] for parts, _ in found})) if classes is None else tuple(classes)
    slides = []
    for parts, place in found:
        if parts[which] not in known:
            raise ValueError(f"{place} is of the class {parts[which]}, which no training slide has")
        slides.append(Slide(name="/".join((split, *parts)), place=place, label=known.index(parts[which])))
    return SlideSet(slides=tuple(slides), classes=known, graded=False)


def _walk(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The slides below a folder, with the names of the folders that lead to them."""
    entries = visible(folder)
    if any(is_tile(entry) for entry in entries):
        yield _inside_classes(parts, folder), folder
        return
    slides = [entry for entry in entries if entry.suffix == EMBEDDED]
    folders = [entry for entry in entries if entry.is_dir()]
    if not slides and not folders:
        raise ValueError(f"{folder} holds neither tiles nor slides: fill it, or take it away")
    for entry in slides:
        yield _inside_classes((*parts, entry.stem), entry), entry
    for entry in folders:
        yield from _walk(entry, (*parts, entry.name))


def _inside_classes(parts: tuple[str, ...], place: Path) -> tuple[str, ...]:
    if len(parts) < 2:
        raise ValueError(f"{place} holds tiles that no class folder is around: they are read from <class>/<slide>")
    return parts
