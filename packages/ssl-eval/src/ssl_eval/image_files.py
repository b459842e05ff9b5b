"""Features of image files of any size, with unreadable files reported or skipped.

Shapes: b batch, n images, m readable images, h x w pixels, d feature width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from genviews_core import images, listing
from genviews_core.distributed import rank, world_size
from ssl_eval.features import extract_features
from ssl_eval.item_loader import OnUnreadable, load_items, raise_error

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BLOCK = 4096
"""Number of images per block in `blocks_of_features`."""
MOST_ASPECT = 64
"""Maximum aspect ratio of images that are resized by their short side."""


class SkippedFiles:
    """Record the message of each skipped image once.

    Args:
        on_new: called with each new message.
    """

    def __init__(self, on_new: OnUnreadable = lambda line: None):
        self.lines: dict[str, None] = {}
        self._on_new = on_new

    def __call__(self, line: str) -> None:
        """Record a skipped image."""
        if line not in self.lines:
            self.lines[line] = None
            self._on_new(line)


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """Options of reading images and extracting features.

    Attributes:
        mean: mean of values in [0, 1].
        std: standard deviation of values in [0, 1].
        batch_size: images per batch, if all have one size.
        workers: worker processes that decode.
        device: device of the network.
        group: processes that share the images.
        on_unreadable: called with an error message for each unreadable image, which is then skipped; raises by default.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    batch_size: int = 16
    workers: int = 0
    device: str | torch.device = "cpu"
    group: dist.ProcessGroup | None = None
    on_unreadable: OnUnreadable = raise_error


@dataclass(frozen=True, eq=False)
class FileFeatures:
    """Features of the readable images, and their indices in the list of files."""

    features: Float[Tensor, "m d"]
    places: Int64[Tensor, " m"]


def read_rgb(path: Path) -> Image.Image:
    """Read an image as RGB; EXIF orientation is not applied, as in the official scripts.

    Raises:
        ValueError: the image cannot be read; see genviews_core.images.
    """
    return images.read_rgb(path, upright=False)


def too_thin(width: int, height: int) -> str | None:
    """Return an error message if an image is too thin to be resized by its short side, otherwise None."""
    if max(width, height) <= MOST_ASPECT * min(width, height):
        return None
    return f"expected an aspect ratio of at most {MOST_ASPECT}, got {width} x {height} px; leave it out"


def normalize_image(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Float[Tensor, "3 h w"]:
    """Return (values in [0, 1] - mean) / std."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    center, scale = (torch.tensor(each)[:, None, None] for each in (mean, std))
    return (values - center) / scale


def images_in(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    Raises:
        ValueError: it is not a folder, or has no images.
    """
    files = listing.images_in(folder)
    if not files:
        raise ValueError(f"expected images ({', '.join(sorted(images.SUFFIXES))}) in {folder}, got none")
    return files


def features_of_files(
    network: nn.Module,
    files: Sequence[Path],
    fit: Callable[[int, Image.Image], Image.Image],
    preparing: ReaderConfig,
) -> FileFeatures:
    """Extract one feature vector per image, on every process of a group.

    Args:
        network: maps images [b, 3, h, w] to features [b, d].
        files: the images.
        fit: resizes an image, given its index in the list, before it is normalized.
        preparing: reader options; batches of more than one image require equal sizes from `fit`.

    Raises:
        ValueError: `on_unreadable` raised, no file can be read, or see extract_features.
    """
    group = preparing.group
    mine = (
        range(rank(group), len(files), world_size(group)) or range(len(files))[:1]
    )  # every process needs at least one
    batches = _Batches(_Files(files, fit, preparing), mine)
    features = extract_features(network, batches, device=preparing.device, group=group)
    return FileFeatures(features.features, features.labels)


def rows_of_files(kept: Int64[Tensor, " m"], count: int) -> Int64[Tensor, " n"]:
    """Return the index of each of `count` files among the readable ones, or -1."""
    return torch.full((count,), -1).scatter(0, kept, torch.arange(len(kept)))


def blocks_of_features(
    network: nn.Module,
    files: Sequence[Path],
    fit: Callable[[int, Image.Image], Image.Image],
    preparing: ReaderConfig,
) -> Iterator[Float[Tensor, "_ d"]]:
    """Yield features in blocks of some thousands of images, for features that do not fit in memory."""
    for start in range(0, len(files), BLOCK):
        yield features_of_files(network, files[start : start + BLOCK], fit, preparing).features


@dataclass(frozen=True)
class _Files(Dataset):
    """Batches of files: pairs of an index and a normalized image or an error message."""

    files: Sequence[Path]
    fit: Callable[[int, Image.Image], Image.Image]
    preparing: ReaderConfig

    def __getitem__(self, rows: Sequence[int]) -> list[tuple[int, Tensor | str]]:
        return [(row, self._read(row)) for row in rows]

    def _read(self, row: int) -> Tensor | str:
        try:
            image = self.fit(row, read_rgb(self.files[row]))
        except ValueError as error:
            return str(error)
        return normalize_image(image, self.preparing.mean, self.preparing.std)


@dataclass(frozen=True)
class _Batches:
    """Yield (images, indices, indices) of the readable images of some rows; indices are returned as labels."""

    files: _Files
    rows: Sequence[int]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        options, rows = self.files.preparing, self.rows
        batches = [rows[start : start + options.batch_size] for start in range(0, len(rows), options.batch_size)]
        some = False
        for batch in load_items(self.files, batches, options.workers):
            for _, line in batch:
                if isinstance(line, str):
                    options.on_unreadable(line)
            if readable := [(row, image) for row, image in batch if not isinstance(image, str)]:
                some, indices = True, torch.tensor([row for row, _ in readable])
                yield torch.stack([image for _, image in readable]), indices, indices
        if not some:
            raise ValueError(f"none of {len(rows)} images can be read, such as {self.files.files[rows[0]]}")
