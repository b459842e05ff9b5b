"""One worker of a run: it reads sources and writes complete views with their rows, chunk by chunk.

Shapes: C, H and W are an image's channels, height and width in pixels.
"""

import contextlib
import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from genviews_core.files import atomic_write, writing
from genviews_core.multiband import encode_tiff, import_tifffile
from viewgen.embed import Embeddings
from viewgen.fingerprint import ensure_same_config
from viewgen.generator import Generator
from viewgen.interpolate import Interpolation
from viewgen.keys import key_path
from viewgen.loading import GeneratorSpec
from viewgen.manifest.journal import Failures, Journal
from viewgen.manifest.table import Row
from viewgen.run.conditions import (
    Conditions,
    ConditionSource,
    FromEmbeddings,
    FromImages,
    FromImagesAndEmbeddings,
    FromInterpolatedImages,
    Partner,
)
from viewgen.run.plan import Plan, WantedView
from viewgen.sharded import Images
from viewgen.strength import Strength

SAVE_OPTIONS = {"png": {"format": "PNG"}, "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0}}


class EncodedView(NamedTuple):
    """The bytes of a file, the size of its image in pixels, and the SHA-256 of the bytes."""

    data: bytes
    width: int
    height: int
    sha256: str


def encode_view(image: UInt8[Tensor, "C H W"], image_format: str) -> EncodedView:
    """Encode a view as "png" or "jpg", if it has one or three channels, or as "tif"."""
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()
    if image_format == "tif":
        data = encode_tiff(array)
    else:
        buffer = io.BytesIO()
        Image.fromarray(array if array.shape[2] != 1 else array[..., 0]).save(buffer, **SAVE_OPTIONS[image_format])
        data = buffer.getvalue()
    return EncodedView(data, array.shape[1], array.shape[0], sha256(data).hexdigest())


def _check_format(image_format: str, channels: int) -> None:
    if image_format in SAVE_OPTIONS and channels not in (1, 3):
        raise ValueError(f"expected image_format 'tif' for views of {channels} channels, got {image_format!r}")
    if image_format == "tif":
        import_tifffile()


TOO_LONG = "the name of its views would be too long for the file system; rename the image"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Configuration of a run for its workers.

    Attributes:
        images: folder of the images, or images in shards.
        views: folder of the views.
        plan: folder of the plan.
        generator: the generator, or how to load it.
        embeddings: folder of cached conditions.
        interpolate: interpolation between conditions.
        strength: strength schedule; None for the generator's default.
        image_format: "png", "jpg" or "tif".
        seed: seed of the run.
        shard: name of the shard, with which its journals begin.
        threads: threads that read and write images; 0 to do both in the thread that computes.
    """

    images: Images
    views: Path
    plan: Path
    generator: Generator | GeneratorSpec
    embeddings: Path | None
    interpolate: Interpolation | None
    strength: Strength | None
    image_format: str
    seed: int
    shard: str
    threads: int


class ChunkResult(NamedTuple):
    """Counts of the missing views of a chunk that were written or failed, and the bytes of the files."""

    number: int
    written: int
    failed: int
    size: int = 0


class ChunkWorker:
    """Worker that generates the chunks of a job on one device. ``run`` is thread-safe: one computes, others do I/O.

    Args:
        job: the job.
        journal: journal of this worker.
        device: device of a generator that is not loaded yet.

    Raises:
        ValueError: if the folder has views of other settings, the generator needs embeddings of another encoder, or the
            format cannot hold the channels of its views.
    """

    def __init__(self, job: Job, journal: Journal, device: str) -> None:
        self.job, self._journal = job, journal
        self.plan = Plan(job.plan)
        given = job.generator
        self.generator: Any = given.load(device) if isinstance(given, GeneratorSpec) else given
        _check_format(job.image_format, getattr(self.generator, "channels", 3))
        embeddings = None if job.embeddings is None else Embeddings.load(job.embeddings)
        ensure_same_config(
            job.views / "settings.json", _settings(job, self.generator, embeddings), holds="views of other settings"
        )
        self._source = _source(job, self.generator, self.plan, embeddings)
        self._failures = Failures(job.views / "failures.jsonl")
        self._pool = ThreadPoolExecutor(job.threads) if job.threads else None
        self._map = self._pool.map if self._pool else map
        self._longest = [os.pathconf(job.views, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX")]
        self._computing, self._recording = threading.Lock(), threading.Lock()

    def __enter__(self) -> "ChunkWorker":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def run(self, number: int) -> ChunkResult:
        """Generate and write the missing views of a chunk whose sources are readable.

        Raises:
            WriteError: if a view cannot be written.
        """
        chunk = self.plan.chunk(number)
        sources = self._source.read(chunk.views, self._map)
        errors = {key: source for key, source in sources.items() if isinstance(source, str)}
        errors |= {view.key: TOO_LONG for view in chunk.views if self._is_too_long(view)}
        size = 0
        kept = [index for index in chunk.missing if chunk.views[index].key not in errors]
        if kept:
            with self._computing, _fitting(self.plan.batch_size):
                images, conditions, strengths = self._compute(chunk.views, sources, errors)
            rows = self._write([(chunk.views[index], images[index]) for index in kept])
            size = sum(len(row.data) for row in rows)
        with self._recording, writing(self.job.views):
            for key, error in errors.items():
                self._failures.add(key, error)
            if kept:
                about = [_about(index, conditions, strengths) for index in kept]
                views = [chunk.views[index] for index in kept]
                self._journal.append([self._row(*row) for row in zip(views, rows, about, strict=True)])
        return ChunkResult(number, len(kept), len(chunk.missing) - len(kept), size)

    def _is_too_long(self, view: WantedView) -> bool:
        """Return whether the name or path of the image's last view exceeds the limits of the file system."""
        path = os.fsencode(self.job.views / f"{view.key}.{self.plan.views_per_image - 1}.{self.job.image_format}")
        return max(map(len, path.split(b"/"))) > self._longest[0] or len(path) >= self._longest[1]

    def _compute(self, views: list[WantedView], sources: Mapping[str, Any], errors: Mapping[str, str]) -> tuple:
        """Return views for all positions of the batch, with their conditions and strengths.

        Positions without a source, and those after the last view, repeat a readable one: the batch size is fixed.
        """
        spare = next(index for index, view in enumerate(views) if view.key not in errors)
        indices = [spare if view.key in errors else index for index, view in enumerate(views)]
        indices += [spare] * (self.plan.batch_size - len(indices))
        conditions = self._source.conditions(views, sources)
        values, seeds = conditions.values[indices], [views[index].seed for index in indices]
        schedule = self.job.strength
        strengths = None
        if schedule is not None:
            strengths = [schedule.sample(views[index].key, views[index].seed) for index in indices]
        given = None if strengths is None else torch.tensor([strength for strength, _ in strengths])
        images = self.generator.generate(values, seeds=seeds, strength=given)
        if hasattr(self.generator, "partner_keys"):
            keys = self.generator.partner_keys(values, seeds)
            conditions = Conditions(values, {index: Partner(key, None) for index, key in enumerate(keys)})
        return images, conditions, strengths

    def _write(self, made: Sequence[tuple[WantedView, Tensor]]) -> list[EncodedView]:
        with writing(self.job.views):
            return list(self._map(self._write_one, made))

    def _write_one(self, made: tuple[WantedView, Tensor]) -> EncodedView:
        view, image = made
        encoded = encode_view(image, self.job.image_format)
        path = key_path(self.job.views, view.path)
        temporary = self.job.views / "journals" / f"{self._journal.name}.{os.getpid()}.{threading.get_ident()}.tmp"
        atomic_write(path, encoded.data, sync=False, temporary=temporary)
        return encoded

    def _row(self, view: WantedView, encoded: EncodedView, about: dict[str, Any]) -> Row:
        return Row(
            key=view.key,
            k=view.k,
            path=view.path,
            generator=getattr(self.generator, "name", type(self.generator).__name__),
            model=getattr(self.generator, "model_id", ""),
            model_hash=self.generator.model_hash,
            seed=view.seed,
            supervision=self.generator.supervision,
            licence=self.generator.licence,
            width=encoded.width,
            height=encoded.height,
            sha256=encoded.sha256,
            **about,
        )


@contextlib.contextmanager
def _fitting(batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(f"out of device memory with batch_size {batch_size}; lower it") from error


def _source(job: Job, generator: Any, plan: Plan, embeddings: Embeddings | None) -> ConditionSource:
    most = -(-(plan.batch_size - 1) // plan.views_per_image) + 1  # images that a chunk can have views of
    if embeddings is None:
        return FromImages(generator, job.images, most)
    accepted = getattr(generator, "encoder_hash", None) or generator.model_hash
    if hasattr(generator, "encoder_hash") and embeddings.encoder_hash != accepted:
        raise ValueError(
            f"expected embeddings of the encoder with hash {accepted}, got those of "
            f"{embeddings.encoder_name} (hash {embeddings.encoder_hash})"
        )
    if not getattr(generator, "from_image", False):
        return FromEmbeddings(embeddings, job.interpolate)
    if job.interpolate is not None:
        return FromInterpolatedImages(generator, job.images, most, embeddings, job.interpolate)
    return FromImagesAndEmbeddings(generator, job.images, most, embeddings)


def _settings(job: Job, generator: Any, embeddings: Embeddings | None) -> dict[str, Any]:
    """Return all settings that determine views."""
    return {
        "generator": getattr(generator, "name", type(generator).__name__),
        "model_hash": generator.model_hash,
        "generator_settings": getattr(generator, "settings", {}),
        "seed": job.seed,
        "strength": None if job.strength is None else job.strength.description(),
        "image_format": job.image_format,
        "encoder_hash": None if embeddings is None else embeddings.encoder_hash,
        "interpolate": None if job.interpolate is None else asdict(job.interpolate),
    }


def _about(index: int, conditions: Conditions, strengths: list[tuple[float, float | None]] | None) -> dict[str, Any]:
    """Return the columns of a row that differ between views."""
    strength, ratio = (None, None) if strengths is None else strengths[index]
    partner = conditions.partners.get(index)
    return {
        "strength": strength,
        "foreground_ratio": ratio,
        "partner_key": None if partner is None else partner.key,
        "alpha": None if partner is None else partner.alpha,
    }
