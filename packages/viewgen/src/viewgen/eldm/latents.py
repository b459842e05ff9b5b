"""A cache of the latents of all images: float16 in memory-mapped shards, so that training steps need not encode.

The folder has 000000000000.npy, 000000004096.npy, ... of shape (rows, V, C, h, w), V = 2 if it includes mirrored
images, and about.json. Shards are written atomically, by any process.

Shapes: C, h, w the channels and sides of an image's latents.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float16
from torch import Tensor

from genviews_core.disk import require_space
from genviews_core.distributed import all_gather_object, default_group, rank, world_size
from genviews_core.files import atomic_write, make_folder, write_json
from genviews_core.pixel_range import Range
from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.data import TrainingImages, read_ahead
from viewgen.fingerprint import keys_hash

SHARD_ROWS = 4096  # of 4 x 32 x 32 and mirrored: 64 MiB
BATCH = 32  # fixed, so that a shard's bytes do not depend on who made it
OPEN_SHARDS = 4096


class Latents:
    """Cached latents by row, scaled, on the CPU.

    Args:
        folder: folder of the shards.
        shard_rows: images per shard.
    """

    def __init__(self, folder: Path, shard_rows: int) -> None:
        self.folder, self.shard_rows = folder, shard_rows
        self._shard = lru_cache(maxsize=OPEN_SHARDS)(lambda start: np.load(shard_path(folder, start), mmap_mode="r"))

    def read(self, row: int, mirrored: bool) -> Float16[Tensor, "C h w"]:
        """Return the latents of one image."""
        offset = row % self.shard_rows
        return torch.from_numpy(np.array(self._shard(row - offset)[offset, int(mirrored)]))


def cache_latents(
    images_root: str | os.PathLike[str],
    keys: Sequence[str],
    folder: str | os.PathLike[str],
    autoencoder: Autoencoder,
    *,
    resolution: int,
    flip: bool = True,
    workers: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
    shard_rows: int = SHARD_ROWS,
    value_range: Range | None = None,
) -> Latents:
    """Encode all images that are not cached yet; under torch.distributed, every process must call this.

    Args:
        images_root: folder of images.
        keys: keys of the images; the row of an image is its index in this sequence.
        folder: folder with one subfolder per combination of autoencoder, resolution, flip and keys.
        autoencoder: autoencoder of the latents.
        resolution: size of the square images in pixels.
        flip: whether to encode mirror images as well.
        workers: threads that read images.
        on_progress: called with (images encoded, images to encode) of this process.
        shard_rows: images per file; this many are held in memory.
        value_range: see ``viewgen.keys.read_key``.

    Raises:
        ValueError: if the disk is too small, or latents are not finite in float16.
    """
    shape = (1 + flip, *autoencoder.latent_shape(resolution))
    about = {
        "autoencoder": autoencoder.hash,
        "bf16": autoencoder.bf16,
        "images": keys_hash(keys),
        "resolution": resolution,
        "shard_rows": shard_rows,
        "shape": shape,
    }
    if autoencoder.statistics is not None:
        about["statistics"] = [values.tolist() for values in autoencoder.statistics]
    if value_range is not None:
        about["value_range"] = list(value_range)
    own = Path(folder) / blake2b(repr(about).encode(), digest_size=8).hexdigest()
    make_folder(own)
    shards = [range(start, min(start + shard_rows, len(keys))) for start in range(0, len(keys), shard_rows)]
    missing = [rows for rows in shards if not shard_path(own, rows.start).exists()]
    group = default_group()
    world = world_size(group)
    missing = all_gather_object(missing, group)[0]  # as the main process sees the folder
    remedy = "free some space, or train with latents_cached=False, which encodes every batch anew"
    require_space(own, sum(map(len, missing)) * 2 * math.prod(shape), "the latents", remedy=remedy)
    if rank(group) == 0:
        write_json(own / "about.json", about)
    pixels = {"channels": autoencoder.channels, "value_range": value_range}
    images = TrainingImages(Path(images_root), keys, resolution, memory_bytes=0, **pixels)
    mine = missing[rank(group) :: world]
    done, total = 0, sum(map(len, mine))
    for rows in mine:
        shard = np.empty((len(rows), *shape), np.float16)
        for offset, latents in _encode(images, rows, autoencoder, flip, workers):
            shard[offset : offset + len(latents)] = latents
            done += len(latents)
            if on_progress is not None:
                on_progress(done, total)
        _write_shard(shard_path(own, rows.start), shard, keys)
    if world > 1:
        dist.barrier()
    return Latents(own, shard_rows)


def shard_path(folder: Path, start: int) -> Path:
    """Return the file of the rows from ``start`` on."""
    return folder / f"{start:012d}.npy"


def _encode(
    images: TrainingImages, rows: range, autoencoder: Autoencoder, flip: bool, workers: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the latents of batches of rows, each with its offset in the shard."""
    batches = [list(rows[offset : offset + BATCH]) for offset in range(0, len(rows), BATCH)]
    wanted = ((batch, [False] * len(batch)) for batch in batches)
    for number, pixels in enumerate(read_ahead(images, wanted, workers=workers)):
        variants = (pixels, pixels.flip(3)) if flip else (pixels,)
        encoded = torch.stack([autoencoder.encode(variant) for variant in variants], dim=1)
        yield number * BATCH, encoded.half().cpu().numpy()


def _write_shard(path: Path, shard: np.ndarray, keys: Sequence[str]) -> None:
    finite = np.isfinite(shard).all(axis=(1, 2, 3, 4))
    if not finite.all():
        key = keys[int(path.stem) + int(finite.argmin())]
        raise ValueError(
            f"expected latents that are finite in float16, got infinity or NaN for {key!r}; train the autoencoder "
            "longer, or start its training afresh"
        )

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # np.save would add .npy to the name
            np.save(file, shard)

    atomic_write(path, write)
