"""Embed a folder of images once; keep the vectors in a memory-mapped file.

The folder: vectors.f16 (raw, N x D), keys.jsonl (one JSON string a line), failures.jsonl, embeddings.json. The last is
written when all is done; until then progress.json says how much of the other files counts.

Shapes: N embedded images, D the embedding's length.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genviews_core.disk import require_space
from genviews_core.files import write_json, writing
from genviews_core.images import UnreadableImage
from genviews_core.lock import lock_folder
from viewgen.encoder import ConditionEncoder, ImageEncoder
from viewgen.fingerprint import keys_hash
from viewgen.keys import KeyFile, list_images, read_key
from viewgen.sharded import Images, ShardedImages, open_images

Progress = Callable[[int, int], None]
PER_CHANNEL = ("encoder_mean", "encoder_std", "encoder_value_range")
DATA_FILES = ("vectors.f16", "keys.jsonl", "failures.jsonl")


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The embeddings of a folder of images.

    Attributes:
        folder: their folder.
        keys: one per row of ``vectors``, sorted.
        vectors: float16 array (N, D), memory-mapped.
        encoder_name: name of the encoder.
        encoder_hash: the hash of its weights.
        encoder_size: input size in pixels; None if the encoder crops images itself.
        encoder_mean: its normalization, for each channel of the images.
        encoder_std: its normalization.
        supervision: the strongest human supervision behind the encoder's weights.
        encoder_value_range: see ``ImageEncoder.value_range``.
    """

    folder: Path
    keys: KeyFile
    vectors: np.ndarray
    encoder_name: str
    encoder_hash: str
    encoder_size: int | None
    encoder_mean: tuple[float, ...]
    encoder_std: tuple[float, ...]
    supervision: str
    encoder_value_range: tuple[float, ...] | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Embeddings":
        """Map the embeddings in ``folder``.

        Raises:
            ValueError: if the folder has none, they are unfinished, or a file is missing or damaged.
        """
        folder = Path(folder)
        if not (folder / "embeddings.json").is_file():
            raise ValueError(f"expected finished embeddings in {folder}, got none; make them with embed_images")
        try:
            about: dict[str, Any] = json.loads((folder / "embeddings.json").read_text())
            shape = (about.pop("count"), about.pop("dim"))
            keys = KeyFile(folder / "keys.jsonl")
            vectors = np.memmap(folder / "vectors.f16", dtype=np.float16, mode="r", shape=shape)
            del about["images"]
            about.update({name: tuple(about[name]) for name in PER_CHANNEL if name in about})
            if len(keys) != len(vectors):
                raise ValueError(f"{len(keys)} keys and {len(vectors)} vectors")
            return cls(folder=folder, keys=keys, vectors=vectors, **about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"the embeddings in {folder} are damaged ({reason}); delete them and embed again"
            ) from error

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def channels(self) -> int:
        """Return the number of channels of the images."""
        return len(self.encoder_mean)

    @property
    def dim(self) -> int:
        """Return the length of one embedding."""
        return self.vectors.shape[1]


def embed_images(
    images_root: str | os.PathLike[str],
    out_folder: str | os.PathLike[str],
    encoder: ImageEncoder | ConditionEncoder,
    *,
    batch_size: int = 256,
    workers: int = 0,
    on_progress: Progress | None = None,
) -> Embeddings:
    """Embed every image under ``images_root``; go on where an interrupted call stopped.

    Unreadable images are left out and listed in ``failures.jsonl`` as {"key", "error"}.

    Args:
        images_root: folder of images, or shards of them (``genviews_core.shards.find_shards``).
        out_folder: output folder of the embeddings.
        encoder: makes them; a ``ConditionEncoder`` makes the conditions of a generator.
        batch_size: images per pass.
        workers: threads that read images; 0 reads in the calling thread.
        on_progress: called with (images done, images in all).

    Raises:
        ValueError: if the folder holds embeddings of another encoder or of other images, if no image can be read, if
            an embedding is not finite in float16, if another process embeds there, or if the folder cannot be written.
    """
    folder = Path(out_folder)
    with open_images(images_root) as images:
        keys = list(images.keys) if isinstance(images, ShardedImages) else list_images(images)
        about = _describe(encoder, keys, batch_size)
        if not (folder / "embeddings.json").is_file():
            with lock_folder(folder), writing(folder):
                if not (folder / "embeddings.json").is_file():  # another process may have finished in between
                    _embed_rest(images, folder, encoder, keys, about, batch_size, workers, on_progress)
    _refuse_others(folder, "embeddings.json", about)
    return Embeddings.load(folder)


def _describe(encoder: ImageEncoder | ConditionEncoder, keys: list[str], batch_size: int) -> dict:
    return {
        "encoder_name": encoder.name,
        "encoder_hash": encoder.hash,
        "encoder_size": encoder.size,
        "encoder_mean": list(encoder.mean),
        "encoder_std": list(encoder.std),
        **({} if encoder.value_range is None else {"encoder_value_range": list(encoder.value_range)}),
        "supervision": encoder.supervision,
        "images": {"count": len(keys), "hash": keys_hash(keys)},
    }


def _refuse_others(folder: Path, name: str, about: dict) -> dict:
    """Return the JSON in ``name``; refuse it if it describes another encoder or other images."""
    found = json.loads((folder / name).read_text())
    for field, what in (("encoder_hash", "another encoder"), ("images", "other images")):
        if found[field] != about[field]:
            raise ValueError(f"{folder} already contains the embeddings of {what}; choose another folder, or delete it")
    for field in ("encoder_size", *PER_CHANNEL):
        if found.get(field) != about.get(field):
            raise ValueError(
                f"expected {folder} to have {field} {about.get(field)}, got {found.get(field)}; "
                "choose another folder, or delete it"
            )
    return found


def _embed_rest(
    images: Images,
    folder: Path,
    encoder: ImageEncoder | ConditionEncoder,
    keys: list[str],
    about: dict,
    batch_size: int,
    workers: int,
    on_progress: Progress | None,
) -> None:
    progress = {**about, "done": 0, "count": 0, "dim": 0, "sizes": [0, 0, 0], "batch_size": batch_size}
    if (folder / "progress.json").is_file():
        progress = _refuse_others(folder, "progress.json", about)
    files = [_open_at(folder / name, size) for name, size in zip(DATA_FILES, progress["sizes"], strict=True)]
    rest = keys[progress["done"] :]
    chunks = [rest[start : start + progress["batch_size"]] for start in range(0, len(rest), progress["batch_size"])]
    for chunk, read in zip(chunks, _read_ahead(images, chunks, encoder, workers), strict=True):
        good = [image for image in read if not isinstance(image, UnreadableImage)]
        if good:
            vectors = encoder(torch.stack(good)).cpu().numpy().astype(np.float16)
            if not np.isfinite(vectors).all():
                raise ValueError(
                    f"expected embeddings that are finite in float16, got others from the encoder {encoder.name}"
                )
            files[0].write(vectors.tobytes())
            if not progress["count"]:
                require_space(folder, vectors[0].nbytes * len(keys), "the embeddings")
            progress.update(dim=vectors.shape[1], count=progress["count"] + len(good))
        for key, image in zip(chunk, read, strict=True):
            failed = isinstance(image, UnreadableImage)
            line = json.dumps({"key": key, "error": str(image)} if failed else key) + "\n"
            files[2 if failed else 1].write(line.encode())
        for file in files:
            file.flush()
        progress.update(done=progress["done"] + len(chunk), sizes=[file.tell() for file in files])
        write_json(folder / "progress.json", progress)
        if on_progress is not None:
            on_progress(progress["done"], len(keys))
    for file in files:
        file.close()
    if not progress["count"]:
        raise ValueError(f"none of the {len(keys)} images can be read; see {folder / 'failures.jsonl'}")
    write_json(folder / "embeddings.json", {**about, "count": progress["count"], "dim": progress["dim"]})
    (folder / "progress.json").unlink()


def _open_at(path: Path, size: int):
    """Open for writing after the first ``size`` bytes; what an interrupted run wrote beyond them goes."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _read_ahead(
    images: Images, chunks: list[list[str]], encoder: ImageEncoder | ConditionEncoder, workers: int
) -> Iterator[list[torch.Tensor | UnreadableImage]]:
    """Yield the images of each chunk, an error in place of an unreadable one; with workers, one chunk ahead."""

    def read(key: str) -> torch.Tensor | UnreadableImage:
        try:
            image = read_key(images, key, encoder.size, channels=encoder.channels, value_range=encoder.value_range)
        except UnreadableImage as error:
            return error
        return encoder.prepare(image) if isinstance(encoder, ConditionEncoder) and encoder.prepare else image

    if workers == 0:
        yield from ([read(key) for key in chunk] for chunk in chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(read, key) for key in chunks[0]] if chunks else []
        for place in range(len(chunks)):
            now, following = ahead, chunks[place + 1] if place + 1 < len(chunks) else []
            ahead = [pool.submit(read, key) for key in following]
            yield [future.result() for future in now]
