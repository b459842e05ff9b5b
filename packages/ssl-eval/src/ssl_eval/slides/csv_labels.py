"""Slides and their classes from a CSV, as PANDA has it: https://www.kaggle.com/c/prostate-cancer-grade-assessment/data."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from genviews_core.listing import visible
from ssl_eval.slides.slide import EMBEDDED, Slide, SlideSet, place_of
from ssl_eval.text_files import read_text


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


def check_all_labelled(root: Path, *sets: SlideSet) -> None:
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
