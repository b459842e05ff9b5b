"""Slides cut into tiles.

A slide is a folder of tile images, such as ROOT/<slide>/<tile>.png, or a file with their embeddings,
ROOT/<slide>.safetensors.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from genviews_core.images import SUFFIXES
from genviews_core.listing import images_in

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
