"""Slides and their classes from class folders, as BRACS and BRIGHT are kept: https://www.bracs.icar.cnr.it/details."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from genviews_core.listing import visible
from ssl_eval.slides.slide import EMBEDDED, Slide, SlideSet, is_tile


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
