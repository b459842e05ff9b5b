"""Labeled images, decoded once and kept in device memory: 50,000 of 32 px take 154 MB.

Shapes: N images, B batch size, K views of each, S size in pixels.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from genviews_core.images import SUFFIXES
from pairdata import PairBatch
from pairdata.decode import decode_square

KNOWN = {"cifar10": ("cifar10.tar.xz", "../shared/data/cifar10.tar.xz")}
"""Default paths of the archive of each known data set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: square images.
        labels: indices into `classes`.
        classes: sorted names of the class folders.
    """

    images: UInt8[Tensor, "N 3 S S"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> Split:
        """Return a copy on the device."""
        return Split(images=self.images.to(device), labels=self.labels.to(device), classes=self.classes)

    def first(self, count: int | None) -> Split:
        """Return `count` images, evenly spaced over all."""
        if count is None or count >= len(self):
            return self
        rows = torch.arange(count) * len(self) // count
        return Split(images=self.images[rows], labels=self.labels[rows], classes=self.classes)


def read_data(source: str, size: int, *, threads: int = 16) -> tuple[Split, Split]:
    """Read training and test images from a folder or archive with train/CLASS/IMAGE and test/CLASS/IMAGE.

    Raises:
        ValueError: a split is missing, or the classes of the splits differ.
    """
    train, test = {}, {}
    for name, content in _files(source):
        part, *inside = Path(name).parts
        if part in ("train", "test") and len(inside) > 1 and _is_image(inside):
            (train if part == "train" else test)["/".join(inside)] = content
    if not train or not test:
        raise ValueError(f"expected train/CLASS/IMAGE and test/CLASS/IMAGE in {source}, got none; give another --data")
    with ThreadPoolExecutor(threads) as pool:
        splits = [_decode(files, size, pool) for files in (train, test)]
    if splits[0].classes != splits[1].classes:
        raise ValueError(f"expected the same class folders in train and test of {source}, got different ones")
    return splits[0], splits[1]


def _is_image(parts: Sequence[str]) -> bool:
    """Return whether a path has an image suffix and no hidden component."""
    return not any(part.startswith(".") for part in parts) and Path(parts[-1]).suffix.lower() in SUFFIXES


def _files(source: str) -> Iterator[tuple[str, bytes]]:
    path = Path(source)
    if not path.exists():
        path = next((Path(place) for place in KNOWN.get(source, ()) if Path(place).exists()), path)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif path.is_file():
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix("./"), content.read()
    else:
        raise ValueError(f"expected a folder or an archive of images, got {source}, which does not exist")


def _decode(files: dict[str, bytes], size: int, pool: ThreadPoolExecutor) -> Split:
    keys = sorted(files)
    squares = pool.map(lambda key: torch.tensor(decode_square(files[key], size)[0]), keys, chunksize=64)
    classes = tuple(sorted({key.partition("/")[0] for key in keys}))
    labels = torch.tensor([classes.index(key.partition("/")[0]) for key in keys])
    return Split(images=torch.stack(list(squares)).permute(0, 3, 1, 2).contiguous(), labels=labels, classes=classes)


class DeviceLoader:
    """Shuffled batches of images and views in device memory.

    Args:
        train: the images.
        batch_size: B; an incomplete last batch is dropped.
        views: K views of each image, or None.
        seed: seed of the order.
    """

    def __init__(
        self, train: Split, *, batch_size: int, views: UInt8[Tensor, "N K 3 S S"] | None = None, seed: int = 0
    ) -> None:
        self.train, self.views, self.seed = train, views, seed
        self.batch_size = min(batch_size, len(train))

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return len(self.train) // self.batch_size

    def epoch(self, number: int) -> Iterator[PairBatch]:
        """Yield the batches of an epoch, in an order that depends only on the seed and the epoch."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        order = torch.randperm(len(self.train), generator=generator)
        for place in range(len(self)):
            yield self.batch(order[place * self.batch_size : (place + 1) * self.batch_size])

    def batch(self, index: Int64[Tensor, " B"]) -> PairBatch:
        """Return the images at these indices and their views."""
        device = self.train.images.device
        rows = index.to(device, non_blocking=True)
        real = self.train.images[rows]
        views = real.new_empty(len(rows), 0, *real.shape[1:]) if self.views is None else self.views[rows]
        count, side = views.shape[1], real.shape[-1]
        return PairBatch(
            real=real,
            views=views,
            view_exists=torch.ones(len(rows), count, dtype=torch.bool, device=device),
            index=index,
            label=self.train.labels[rows],
            sizes=torch.full((len(rows), 1 + count, 2), side),
        )
