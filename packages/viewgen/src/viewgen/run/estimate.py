"""Time, disk and cost of a run, estimated from a few of its batches."""

import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viewgen.embed import Embeddings
from viewgen.generator import Generator
from viewgen.interpolate import Interpolation
from viewgen.keys import HashedPathSet
from viewgen.loading import GeneratorSpec
from viewgen.manifest.journal import Journal
from viewgen.run.local_engine import run_here
from viewgen.run.plan import Plan
from viewgen.run.worker import Job
from viewgen.sharded import image_keys, open_images
from viewgen.strength import Strength, as_strength


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Resources that a run needs.

    Attributes:
        images: number of images.
        views: number of views.
        measured: views that were generated to measure it.
        views_per_second: throughput of one device, without loading the model and the first batch.
        loading_seconds: time to load the model and generate the first batch.
        bytes_per_view: mean size of a view's file.
    """

    images: int
    views: int
    measured: int
    views_per_second: float
    loading_seconds: float
    bytes_per_view: float

    def hours(self, devices: int) -> float:
        """Return the hours that a number of equal devices takes."""
        return (self.views / self.views_per_second / devices + self.loading_seconds) / 3600

    def report(self, devices: Sequence[int] = (1, 2, 4, 8), price: float | None = None) -> str:
        """Return the estimate as a few lines of text.

        Args:
            devices: numbers of equal devices to report.
            price: price of one device per hour, in any currency.
        """
        lines = [
            f"{self.views:,} views of {self.images:,} images, estimated from {self.measured} views",
            f"speed: {self.views_per_second:.3g} views/s on one device; loading {self.loading_seconds:.0f} s",
            f"disk: {self.views * self.bytes_per_view / 1e9:.3g} GB ({self.bytes_per_view / 1e3:.3g} kB a view)",
        ]
        for count in devices:
            hours = self.hours(count)
            cost = "" if price is None else f", cost {hours * count * price:,.2f}"
            name = "device" if count == 1 else "devices"
            lines.append(f"{count} {name}: {hours:.3g} hours, {hours * count:.3g} device hours{cost}")
        return "\n".join(lines)


def estimate_run(
    images_root: str | Path,
    generator: Generator | GeneratorSpec,
    *,
    batches: int = 3,
    views_per_image: int = 1,
    seed: int = 0,
    strength: float | Mapping[str, float] | Strength | None = None,
    batch_size: int = 64,
    image_format: str = "png",
    embeddings: Embeddings | None = None,
    interpolate: Interpolation | None = None,
    keys: Iterable[str] | None = None,
    workers: int = 0,
    device: str | None = None,
) -> RunEstimate:
    """Generate a few batches of a run into a temporary folder, and estimate the whole from them.

    Args:
        images_root: folder of images, or shards of them.
        generator: the generator, or how to load it.
        batches: measured batches of images drawn at random, after one that is not measured.
        views_per_image: see ``generate_views``, as for all following arguments.
        seed: seed of the run.
        strength: schedule, or strength in the generator's unit.
        batch_size: views per batch.
        image_format: "png", "jpg" or "tif".
        embeddings: cached conditions.
        interpolate: interpolation between conditions.
        keys: keys of the images; by default all images.
        workers: threads that read images and write views.
        device: device of a generator that is not loaded yet; by default a GPU if there is one.

    Raises:
        ValueError: if there is no image, none of the drawn ones can be read, or an argument does not fit.
    """
    if batches < 1:
        raise ValueError(f"expected 1 or more batches to measure, got {batches}")
    wanted = -(-(batches + 1) * batch_size // views_per_image)
    with open_images(images_root) as images, tempfile.TemporaryDirectory(prefix="viewgen-") as place:
        drawn, count = _sample(image_keys(images) if keys is None else keys, wanted)
        views = Path(place)
        plan = _plan(views / ".plan", drawn, views_per_image, batch_size, seed, image_format)
        job = Job(
            images=images,
            views=views,
            plan=views / ".plan",
            generator=generator,
            embeddings=None if embeddings is None else embeddings.folder.resolve(),
            interpolate=interpolate,
            strength=as_strength(strength),
            image_format=image_format,
            seed=seed,
            shard="dry-run",
            threads=workers,
        )
        start = time.perf_counter()
        ends, written, size = [], [], 0
        with Journal(views / "journals" / "dry-run.jsonl") as journal:
            for result in run_here(job, plan, journal, device):
                ends.append(time.perf_counter())
                written.append(result.written)
                size += result.size
    if not sum(written):
        raise ValueError(f"none of {len(drawn)} images drawn from {images_root} can be read; check the folder")
    measured, seconds = (sum(written[1:]), ends[-1] - ends[0]) if sum(written[1:]) else (sum(written), ends[-1] - start)
    speed = measured / seconds
    return RunEstimate(
        images=count,
        views=count * views_per_image,
        measured=sum(written),
        views_per_second=speed,
        loading_seconds=max(0.0, ends[0] - start - written[0] / speed),
        bytes_per_view=size / sum(written),
    )


def _sample(keys: Iterable[str], wanted: int) -> tuple[list[str], int]:
    """Return keys drawn evenly from a stream (reservoir sampling) and the number of all."""
    draw = random.Random(0)
    kept: list[str] = []
    count = 0
    for count, key in enumerate(keys, 1):
        if len(kept) < wanted:
            kept.append(key)
        elif (place := draw.randrange(count)) < wanted:
            kept[place] = key
    return sorted(kept), count


def _plan(folder: Path, keys: list[str], views_per_image: int, batch_size: int, seed: int, image_format: str) -> Plan:
    options: dict[str, Any] = {"views_per_image": views_per_image, "batch_size": batch_size, "seed": seed}
    return Plan.make(folder, keys, HashedPathSet([]), image_format=image_format, shard=(0, 1), **options)
