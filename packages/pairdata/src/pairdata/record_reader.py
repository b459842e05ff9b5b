"""Read batches from records: locate the squares of a batch, decode them in pieces, and assemble the batch.

Legend: B images, K views of each, P slots for squares (the image, its views, an interpolated view and its partner),
S size of the squares.
"""

import mmap
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from pairdata.batch import InterpolatedViews, PairBatch
from pairdata.jpeg_decoder import open_decoder
from pairdata.records import Records


@dataclass(frozen=True, eq=False)
class PendingBatch:
    """A batch that is being decoded.

    Attributes:
        positions: the requested rows.
        epoch: the epoch, which selects among several views of an image.
        rows: their entries in the index.
        squares: uint8 [P][B, S, S, 3], the output.
        images: the same memory as tensors: the images, the views [B, K, ...], and the interpolated views and partners.
        sizes: int64 [B, P, 2].
        alpha: float32 [B].
        wanted: (row, slot) of every square to decode.
        jobs: (address, length, address of the output) of each.
        filled: bool [B, P], which squares were decoded.
    """

    positions: np.ndarray
    epoch: int
    rows: np.ndarray
    images: tuple[Tensor, Tensor, Tensor | None]
    squares: list[np.ndarray]
    sizes: np.ndarray
    alpha: np.ndarray
    wanted: np.ndarray
    jobs: list[tuple[int, int, int]]
    filled: np.ndarray


class RecordReader:
    """Reads batches of records; a batch depends only on the positions and the epoch.

    An image that cannot be decoded is replaced by the next one that can; a view that cannot be decoded counts as
    missing.

    Args:
        records: the records.
        views_per_image: view slots per image, K.
        mixed: whether to read interpolated views and their partners.
        pinned: whether batches are in page-locked memory.
        ahead: whether to prefetch the pages of a batch when it is begun (for records larger than the memory).
    """

    def __init__(self, records: Records, *, views_per_image: int, mixed: bool, pinned: bool, ahead: bool):
        self.records, self.views, self.mixed, self.pinned, self.ahead = records, views_per_image, mixed, pinned, ahead
        self.slots = 1 + self.views + 2 * self.mixed
        self._decode = open_decoder(records.layout.mode, records.layout.size)
        if ahead and hasattr(mmap, "MADV_RANDOM"):
            for opened in records.maps:
                opened.madvise(mmap.MADV_RANDOM)

    def begin(self, positions: np.ndarray, epoch: int) -> PendingBatch:
        """Locate the squares of a batch and allocate its memory."""
        rows = np.asarray(self.records.rows[positions])
        located, owner, alpha = self._find(rows, positions, epoch)
        images, squares = self._room(len(rows))
        shard = owner // self.records.shard_images
        wanted = np.argwhere(located["exists"])  # offsets were checked when the records were opened
        row, slot = wanted.T
        sources = (self.records.addresses[shard] + located["place"])[row, slot]
        first = np.array([square.ctypes.data for square in squares], np.int64)
        stride = np.array([square.strides[0] for square in squares], np.int64)
        targets = first[slot] + stride[slot] * row
        lengths = located["bytes"][row, slot]
        if self.ahead:
            self._prefetch(shard[row, slot], located["place"][row, slot], lengths)
        return PendingBatch(
            positions=positions,
            epoch=epoch,
            rows=rows,
            images=images,
            squares=squares,
            sizes=np.stack([located["height"], located["width"]], -1).astype(np.int64),
            alpha=alpha,
            wanted=wanted,
            jobs=list(zip(sources.tolist(), lengths.tolist(), targets.tolist(), strict=True)),
            filled=np.zeros(located.shape, bool),
        )

    def decode(self, reading: PendingBatch, piece: int, pieces: int) -> None:
        """Decode one of several pieces of a batch; pieces may be decoded concurrently."""
        first, last = (len(reading.jobs) * part // pieces for part in (piece, piece + 1))
        done = [self._decode(*job) for job in reading.jobs[first:last]]
        row, slot = reading.wanted[first:last].T
        reading.filled[row, slot] = done

    def finish(self, reading: PendingBatch) -> tuple[PairBatch, dict[str, str]]:
        """Return a decoded batch, and error messages by key."""
        failures = self._failures(reading)
        filled, sizes, squares, views = reading.filled, reading.sizes, reading.squares, self.views
        if self.mixed:
            filled[:, -2] &= filled[:, -1]
            filled[:, -1] = filled[:, -2]
        for row, slot in np.argwhere(~filled[:, 1:]):  # the image itself replaces a missing view
            squares[1 + slot][row], sizes[row, 1 + slot] = squares[0][row], sizes[row, 0]
        real, beside, mixed = reading.images
        batch = PairBatch(
            real=real,
            views=beside,
            view_exists=torch.from_numpy(filled[:, 1 : 1 + views].copy()),
            index=torch.from_numpy(reading.rows["index"].copy()),
            label=torch.from_numpy(reading.rows["label"].copy()),
            sizes=torch.from_numpy(sizes[:, : 1 + views].copy()),
            mixed=None if mixed is None else self._mixed(reading, mixed),
        )
        for row in np.flatnonzero(~filled[:, 0]):
            failures |= self._replace(batch, int(row), int(reading.positions[row]), reading.epoch)
        return batch, failures

    def read(self, positions: np.ndarray, epoch: int) -> tuple[PairBatch, dict[str, str]]:
        """Read a batch in one call."""
        reading = self.begin(positions, epoch)
        self.decode(reading, 0, 1)
        return self.finish(reading)

    def _find(self, rows: np.ndarray, positions: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return location and row of each square, [B, P], and alpha of the interpolated views, [B]."""
        squares, every, layout = rows["square"], np.arange(len(rows)), self.records.layout
        located = np.zeros((len(rows), self.slots), squares.dtype)
        owner = np.repeat(positions[:, None], self.slots, 1)
        located[:, 0] = squares[:, 0]
        for slot in range(self.views if layout.views else 0):
            turn = (epoch * self.views + slot) % np.maximum(rows["views"], 1)
            located[:, 1 + slot] = np.where(slot < rows["views"], squares[every, 1 + turn], located[:, 1 + slot])
        alpha = np.ones(len(rows), np.float32)
        if self.mixed:
            turn = epoch % np.maximum(rows["mixed"], 1)
            located[:, -2] = squares[every, 1 + layout.views + turn]
            owner[:, -1], alpha = rows["partner"][every, turn], rows["alpha"][every, turn]
            partners = np.asarray(self.records.rows[owner[:, -1]])["square"][:, 0]
            located[:, -1] = np.where(located["exists"][:, -2], partners, located[:, -1])
        return located, owner, alpha

    def _room(self, count: int) -> tuple[tuple[Tensor, Tensor, Tensor | None], list[np.ndarray]]:
        size = self.records.layout.size
        shapes = [(count,), (count, self.views), *([(2, count)] if self.mixed else [])]
        room = [torch.empty(*shape, size, size, 3, dtype=torch.uint8, pin_memory=self.pinned) for shape in shapes]
        squares = [room[0].numpy(), *room[1].numpy().swapaxes(0, 1), *(room[2].numpy() if self.mixed else ())]
        real, views, *mixed = (images.movedim(-1, -3) for images in room)
        return (real, views, mixed[0] if mixed else None), squares

    def _prefetch(self, shards: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> None:
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for shard, offset, length in zip(shards.tolist(), offsets.tolist(), lengths.tolist(), strict=True):
            begin = offset - offset % mmap.PAGESIZE
            self.records.maps[shard].madvise(mmap.MADV_WILLNEED, begin, offset + length - begin)

    def _failures(self, reading: PendingBatch) -> dict[str, str]:
        """Return messages of the squares that could not be decoded."""
        failures = {}
        for row, slot in reading.wanted[~reading.filled[tuple(reading.wanted.T)]].tolist():
            key = self.records.key(int(reading.positions[row]))
            what = "image" if slot == 0 else "view" if slot <= self.views else "interpolated view or its partner"
            failures[key] = f"its {what} in {self.records.root} is damaged; apps/pack --verify finds and repairs it"
        return failures

    def _mixed(self, reading: PendingBatch, images: Tensor) -> InterpolatedViews:
        exists = reading.filled[:, -2].copy()
        return InterpolatedViews(
            interpolated=images[0],
            partner=images[1],
            alpha=torch.from_numpy(np.where(exists, reading.alpha, np.float32(1))),
            exists=torch.from_numpy(exists),
            sizes=torch.from_numpy(reading.sizes[:, -2:].copy()),
        )

    def _replace(self, batch: PairBatch, row: int, position: int, epoch: int) -> dict[str, str]:
        """Replace a row of a batch by the next readable image with its views."""
        for step in range(1, len(self.records)):
            wanted = np.array([(position + step) % len(self.records)])
            reading = self.begin(wanted, epoch)
            self.decode(reading, 0, 1)
            if reading.filled[0, 0]:
                other, failures = self.finish(reading)
                _copy_row(other, 0, batch, row)
                return failures
        raise ValueError(f"none of the {len(self.records)} images in {self.records.root} can be read; pack them again")


def _copy_row(
    source: PairBatch | InterpolatedViews, given: int, target: PairBatch | InterpolatedViews, row: int
) -> None:
    for field in fields(source):
        ours, theirs = getattr(target, field.name), getattr(source, field.name)
        if isinstance(ours, Tensor):
            ours[row] = theirs[given]
        elif ours is not None:
            _copy_row(theirs, given, ours, row)
