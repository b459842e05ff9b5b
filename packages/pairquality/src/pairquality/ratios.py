"""Write the foreground ratios of a folder of images to a Parquet file.

While running, a journal next to it has one JSON line per image done; an interrupted call can be repeated, and the
resulting file is the same as without the interruption.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from genviews_core.files import atomic_write, writing
from genviews_core.listing import iter_images
from genviews_core.lock import lock_file
from pairquality.encoder import FeatureEncoder
from pairquality.fit import Progress
from pairquality.foreground import ForegroundPCA, foreground_ratio
from pairquality.images import Read, read_batches

SCHEMA = pa.schema([("key", pa.string()), ("foreground_ratio", pa.float64())])
ROWS = 1 << 14  # of a row group
METADATA = b"pairquality"


@dataclass(frozen=True, kw_only=True)
class RatiosSummary:
    """Result of `write_ratios`.

    Attributes:
        written: number of ratios in the file.
        failed: number of unreadable images, listed in `failures`.
        failures: file of JSON lines {"key", "error"}; it exists if images failed.
    """

    written: int
    failed: int
    failures: Path


def write_ratios(
    images_root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoder: FeatureEncoder,
    pca: ForegroundPCA,
    *,
    batch_size: int = 64,
    workers: int = 4,
    on_progress: Progress | None = None,
) -> RatiosSummary:
    """Write the fraction of foreground tokens of every image, as the columns key and foreground_ratio, sorted by key.

    Memory does not depend on the number of images.

    Args:
        images_root: folder of images.
        out: .parquet file to write; failures go to the same name with .failures.jsonl.
        encoder: encoder of the images.
        pca: PCA fitted on that encoder.
        batch_size: images per forward pass; a resumed run keeps its first value.
        workers: threads that read images.
        on_progress: called with (images done, total images).

    Raises:
        ValueError: the PCA belongs to another encoder, the file holds other ratios or cannot be written, another
            process is writing it, no image can be read, or features are NaN.
    """
    pca.validate_encoder(encoder)
    out = Path(out)
    if out.suffix != ".parquet":
        raise ValueError(f"expected a .parquet file to write, got {out}; choose another name")
    about = _about(images_root, encoder, pca)
    if out.exists():
        return _summary(out, about)
    with lock_file(out):
        if not out.exists():  # another process may have finished in between
            journal = _Journal(out.with_name(out.name + ".journal"), {**about, "batch_size": batch_size})
            total = about["images"]["count"]
            rest = islice(iter_images(images_root), journal.done, None)
            for batch in read_batches(images_root, rest, encoder.size, batch_size=journal.batch_size, workers=workers):
                journal.add(_rows(batch, encoder, pca))
                if on_progress is not None:
                    on_progress(journal.done, total)
            _finish(journal, out, about)
        return _summary(out, about)


def _about(root: str | os.PathLike[str], encoder: FeatureEncoder, pca: ForegroundPCA) -> dict[str, Any]:
    images = _count_and_hash(iter_images(root))
    if not images["count"]:
        raise ValueError(f"expected images under {root}, found none; give another folder")
    return {
        "images": images,
        "encoder": {
            "name": encoder.name,
            "hash": encoder.hash,
            "size": encoder.size,
            "autocast": str(encoder.autocast),
        },
        "pca": pca.hash,
    }


def _count_and_hash(keys: Iterable[str]) -> dict[str, Any]:
    """Return the number of keys, and a hash of the keys in their order."""
    digest, count = blake2b(digest_size=16), 0
    for key in keys:
        digest.update(json.dumps(key).encode())
        count += 1
    return {"count": count, "hash": digest.hexdigest()}


def _refuse_others(path: Path, found: dict[str, Any], about: dict[str, Any]) -> None:
    for field, what in (("images", "other images"), ("encoder", "another encoder"), ("pca", "another PCA")):
        mine, theirs = about[field], found.get(field)
        if mine != theirs:
            raise ValueError(f"{path} holds ratios of {what}; choose another file, or delete it")


def _rows(batch: list[Read], encoder: FeatureEncoder, pca: ForegroundPCA) -> list[dict[str, Any]]:
    images = [image for _, image in batch if isinstance(image, Tensor)]
    ratios = iter(_ratios(torch.stack(images), encoder, pca) if images else [])
    return [
        {"key": key, "foreground_ratio": next(ratios)}
        if isinstance(image, Tensor)
        else {"key": key, "error": str(image)}
        for key, image in batch
    ]


def _ratios(images: Tensor, encoder: FeatureEncoder, pca: ForegroundPCA) -> list[float]:
    """Return exact quotients: 80 of 400 tokens are 0.2, the edge of a noise level, which float32 would miss."""
    tokens = encoder(images.to(encoder.mean.device))
    if not tokens.isfinite().all():
        raise ValueError(
            f"expected finite features from the encoder {encoder.name}, got NaN or infinity; try another precision"
        )
    count = tokens.shape[1]
    return [round(fraction * count) / count for fraction in foreground_ratio(pca, tokens).tolist()]


class _Journal:
    """A line that describes the run, then a line per image; when reopened, it is truncated to complete batches."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.batch_size, self.done = path, about["batch_size"], 0
        if not (path.is_file() and self._reopen(about)):
            atomic_write(path, json.dumps(about) + "\n")

    def _reopen(self, about: dict[str, Any]) -> bool:
        with writing(self.path), self.path.open("r+b") as file:
            first = file.readline()
            if not first.endswith(b"\n"):
                return False
            found = self._parse(first)
            _refuse_others(self.path, found, about)
            self.batch_size = found["batch_size"]
            kept = place = len(first)
            for count, line in enumerate(file, 1):
                place += len(line)
                if line.endswith(b"\n") and count % self.batch_size == 0:
                    self.done, kept = count, place
            file.truncate(kept)
        return True

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append a batch."""
        with writing(self.path), self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        self.done += len(rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the images."""
        with self.path.open() as file:
            next(file)
            yield from map(self._parse, file)

    def _parse(self, line: str | bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            assert isinstance(row, dict) and ("key" in row or "batch_size" in row)
        except (ValueError, AssertionError):
            raise self.damage from None
        return row

    @property
    def damage(self) -> ValueError:
        """Return the error to raise for a damaged journal."""
        return ValueError(f"{self.path} is damaged, it does not hold every image once; delete it to start again")


def _finish(journal: _Journal, out: Path, about: dict[str, Any]) -> None:
    """Write the journal's ratios to the Parquet file and its errors to the failures file, and delete the journal."""
    if _count_and_hash(row["key"] for row in journal.rows()) != about["images"]:
        raise journal.damage
    failures, failed = _failures_path(out), sum("error" in row for row in journal.rows())

    def write_failures(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in journal.rows() if "error" in row)

    failures.unlink(missing_ok=True)
    if failed:
        atomic_write(failures, write_failures)
    if failed == journal.done:
        raise ValueError(f"none of the {failed} images can be read; see {failures}")
    metadata = {METADATA: json.dumps({**about, "failed": failed}).encode()}

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, SCHEMA.with_metadata(metadata)) as writer:
            valid = (row for row in journal.rows() if "error" not in row)
            while rows := list(islice(valid, ROWS)):
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))

    atomic_write(out, write)
    journal.path.unlink()


def _summary(out: Path, about: dict[str, Any]) -> RatiosSummary:
    try:
        metadata = pq.read_metadata(out)
        found = json.loads((metadata.metadata or {})[METADATA])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{out} holds no ratios of pairquality; choose another file, or delete it") from error
    _refuse_others(out, found, about)
    if metadata.num_rows + found["failed"] != about["images"]["count"]:
        raise ValueError(f"{out} does not hold every image once; delete it and run the same command again")
    return RatiosSummary(written=metadata.num_rows, failed=found["failed"], failures=_failures_path(out))


def _failures_path(out: Path) -> Path:
    return out.with_suffix(".failures.jsonl")
