"""Generate the views of a folder of images, resumable, on many devices and machines, with atomic writes."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genviews_core.disk import on_disk, require_space
from genviews_core.files import writing
from genviews_core.shards import is_sharded
from viewgen.embed import Embeddings
from viewgen.generator import Generator
from viewgen.interpolate import Interpolation
from viewgen.keys import HashedPathSet, key_path
from viewgen.loading import GeneratorSpec
from viewgen.manifest.journal import Failures, Journal, recorded_paths
from viewgen.manifest.verify import view_files
from viewgen.run.local_engine import run_here, run_processes
from viewgen.run.plan import Plan
from viewgen.run.worker import ChunkResult, Job
from viewgen.sharded import image_keys, open_images
from viewgen.strength import Strength, as_strength

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Counts of views in this call's shard.

    Attributes:
        wanted: images times views per image.
        written: made now.
        already: found whole.
        failed: not made, because their source cannot be read or has no embedding.
    """

    wanted: int
    written: int
    already: int
    failed: int


REMEDY = "free some space, or write JPEG (image_format jpg); files already written are kept"


def generate_views(
    images_root: str | os.PathLike[str],
    views_root: str | os.PathLike[str],
    generator: Generator | GeneratorSpec,
    *,
    views_per_image: int = 1,
    seed: int = 0,
    strength: float | Mapping[str, float] | Strength | None = None,
    engine: str = "local",
    batch_size: int = 64,
    image_format: str = "png",
    embeddings: Embeddings | None = None,
    interpolate: Interpolation | None = None,
    keys: Iterable[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    devices: Sequence[str] | None = None,
    actors: int | None = None,
    workers: int = 0,
    on_progress: Progress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> RunSummary:
    """Write ``views_per_image`` views of every image; go on where an interrupted call stopped.

    A view is the file ``<key>.<k>.<format>`` under ``views_root`` and a row in a worker's journal. A file without a
    row is made again, a row without a file as well. Images that cannot be read are listed in ``failures.jsonl``.
    The same views come out, byte for byte, for any number of workers and any interruption.

    Args:
        images_root: a folder of images, or shards of them (``genviews_core.shards.find_shards``).
        views_root: folder of the views; neither inside ``images_root`` nor around it.
        generator: makes them; for several devices, machines or processes a ``GeneratorSpec``, loaded by each worker.
        views_per_image: K; views k = 0..K-1.
        seed: seed of all random numbers, together with key and k.
        strength: strength in the generator's unit: one for all, one per key, or a schedule (``viewgen.strength``).
        engine: "local" works on this machine, "ray" with Ray Data on the cluster of ``ray.init`` (extra ``ray``).
        batch_size: views computed together. Another size may change a view by rounding.
        image_format: "png", "jpg" at quality 95, or "tif", which holds any number of channels.
        embeddings: cached conditions; without them the generator makes the conditions from the images.
        interpolate: make interpolated views; needs ``embeddings``.
        keys: keys of the images; None for all under ``images_root``.
        shard: (which, of how many): this call's part of the chunks, for schedulers that start processes themselves.
        devices: "local" starts a process on each, such as ("cuda:0", "cuda:1") or ("cpu", "cpu"); a CPU process
            computes on one thread. Without it, all happens in this process: a ``GeneratorSpec`` on the first GPU if
            there is one, and a generator where it is.
        actors: number of actors of engine "ray"; None for one per GPU, or one per CPU core without GPUs.
        workers: threads of each process that read sources and write views; 0 does so between computing.
        on_progress: called with (views settled, views in all) of this shard.
        on_message: called with a line about the disk that the missing views of all shards take, once some are written.

    Raises:
        ValueError: if the folder holds views of other settings, if an argument does not fit, if the generator does
            not know the embeddings' encoder, if the disk is full (``genviews_core.files.WriteError``), or
            if it is too small for the missing views, judged by the first ones.
    """
    if "://" in os.fspath(views_root):
        raise ValueError(f"expected a folder for the views, got {os.fspath(views_root)}; give --shards to write there")
    root = images_root if is_sharded(images_root) else Path(images_root).resolve()
    views = Path(views_root).resolve()
    _check(root, views, generator, engine, image_format, embeddings, interpolate, shard, devices)
    for argument, value, least in (
        ("views_per_image", views_per_image, 1),
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
    ):
        if value < least:
            raise ValueError(f"expected {argument} of {least} or more, got {value}; give more")
    name = f"{shard[0]:05d}-of-{shard[1]:05d}"
    with (
        Journal(views / "journals" / f"{name}.jsonl") as journal,
        _folder(views / f".plan-{name}") as folder,
        contextlib.ExitStack() as opened,
    ):
        with writing(views):
            for left in (views / "journals").glob(f"{name}*.tmp"):
                left.unlink()
            failures = Failures(views / "failures.jsonl")
            images = opened.enter_context(open_images(root, folder / "shards", failures.add))
            refused = [] if keys is None else _refuse(keys := list(keys), failures)
            plan = Plan.make(
                folder,
                image_keys(images, failures.add_folder) if keys is None else sorted({*keys} - {*refused}),
                HashedPathSet(recorded_paths(views)) & HashedPathSet(view_files(views)),
                views_per_image=views_per_image,
                batch_size=batch_size,
                seed=seed,
                image_format=image_format,
                shard=shard,
            )
        job = Job(
            images=images,
            views=views,
            plan=folder,
            generator=generator,
            embeddings=None if embeddings is None else embeddings.folder.resolve(),
            interpolate=interpolate,
            strength=as_strength(strength),
            image_format=image_format,
            seed=seed,
            shard=name,
            threads=workers,
        )
        if engine == "ray" and len(plan.chunks):
            try:
                from viewgen.run.ray_engine import run_ray  # an extra
            except ModuleNotFoundError as error:
                raise ValueError("engine ray needs Ray; pip install 'ray[data]', or use engine local") from error

            results = run_ray(job, plan, actors)
        elif devices is not None and len(plan.chunks):
            results = run_processes(job, plan, devices)
        else:  # where nothing is lacking, too: it compares the settings
            results = run_here(job, plan, journal)
        refusals = len(refused) * views_per_image if shard[0] == 0 else 0
        return _settle(_measuring(results, plan, views, shard[1], on_message), plan, refusals, on_progress)


def _measuring(
    results: Iterable[ChunkResult], plan: Plan, views: Path, shards: int, on_message: Callable[[str], None] | None
) -> Iterator[ChunkResult]:
    """Pass results on; by the first views that are written, check that the disk holds the others."""
    results = iter(results)
    for result in results:
        yield result
        if result.written:
            rest = (plan.missing - result.written - result.failed) * shards
            size = on_disk(result.size / result.written)
            line = require_space(views, rest * size, f"{rest:,} more views", remedy=REMEDY)
            if on_message is not None and rest:
                on_message(line)
            break
    yield from results


def _settle(results: Iterable[ChunkResult], plan: Plan, refused: int, on_progress: Progress | None) -> RunSummary:
    """Count what becomes of the chunks; ``refused`` views failed before."""
    wanted, already = plan.wanted + refused, plan.wanted - plan.missing
    written, failed = 0, refused
    for result in results:
        written, failed = written + result.written, failed + result.failed
        if on_progress is not None:
            on_progress(already + written + failed, wanted)
    return RunSummary(wanted=wanted, written=written, already=already, failed=failed)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Create an empty temporary folder and remove it at the end."""
    shutil.rmtree(path, ignore_errors=True)
    with writing(path.parent):
        path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _refuse(keys: Iterable[str], failures: Failures) -> list[str]:
    """Return the keys and record those that point outside the folder as failures."""
    refused = []
    for key in keys:
        try:
            key_path(Path(), key)
        except ValueError as error:
            failures.add(key, str(error))
            refused.append(key)
    return refused


def _check(
    images: str | os.PathLike[str],
    views: Path,
    generator: Generator | GeneratorSpec,
    engine: str,
    image_format: str,
    embeddings: Embeddings | None,
    interpolate: Interpolation | None,
    shard: tuple[int, int],
    devices: Sequence[str] | None,
) -> None:
    if isinstance(images, Path) and (images == views or images in views.parents or views in images.parents):
        raise ValueError(f"expected separate folders, neither inside the other, got views {views} and images {images}")
    if engine not in ("local", "ray"):
        raise ValueError(f"expected engine local or ray, got {engine!r}")
    if image_format not in ("png", "jpg", "tif"):
        raise ValueError(f"expected image_format 'png', 'jpg' or 'tif', got {image_format!r}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"expected shard (index, count) with 0 <= index < count, got {shard}")
    if interpolate is not None and embeddings is None:
        raise ValueError("expected embeddings= for interpolated views, got none; make them with embed_images")
    if devices is not None and not isinstance(generator, GeneratorSpec):
        raise ValueError(
            "expected a viewgen.GeneratorSpec with devices=, whose processes load the generator, got a generator"
        )
