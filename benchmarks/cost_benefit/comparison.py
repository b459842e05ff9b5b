"""Compare kinds of views (folders of views, and augmentations) with their images, and time them.

FID, SSIM, LPIPS and cosine are computed by ssl_eval; milliseconds are measured at batch size 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

import viewgen
from benchmarks.cost_benefit.augmentations import Augmenter, augmentations
from benchmarks.cost_benefit.encoders import open_encoder
from benchmarks.cost_benefit.manifest_reader import About, Reader, View, about_views, evenly, keys_and_paths
from benchmarks.cost_benefit.timing import maker_of, milliseconds_per_view, named_generators
from genviews_core.device import resolve_device
from genviews_core.progress import Progress
from pairdata import Augment
from ssl_eval.image_metrics import ImageMetrics, image_metrics
from ssl_eval.metric_networks import load_inception, load_lpips
from ssl_eval.view_cost import count_parameters
from viewgen.fingerprint import file_hash
from viewgen.manifest import open_manifest


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Accuracy, FID, SSIM, milliseconds and parameters of kinds of views."""

    images: Annotated[Path, tyro.conf.Positional]
    views: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of views with a manifest.parquet; crop, jitter and blur are always compared as well."""
    inception: Path | None = None
    """Official network of FID: pt_inception-2015-12-05-6726825d.pth."""
    features: str | None = None
    """Another network for FID: open_clip/MODEL:TAG (or :FILE), timm/MODEL, or a backbone folder."""
    lpips: Path | None = None
    """File with torchvision's weights of AlexNet, VGG-16 or SqueezeNet 1.1, for LPIPS."""
    encoder: str | None = None
    """Encoder for the cosine between image and view; same names as for --features."""
    results: Path | None = None
    """JSON lines of results; the linear top-1 of a row is that of the recipe with the same name."""
    generators: tuple[str, ...] = ()
    """Generators to time: "ROW=GENERATOR --option value", with the options of `viewgen generate`."""
    size: int | None = None
    """Size in pixels at which pairs are compared; default: that of the first views, or 224 without views."""
    count: int | None = None
    """Number of evenly spaced pairs to compare per row; default: all."""
    timed: int = 1000
    """Number of images to time, one at a time."""
    out: Path | None = None
    """File to which a JSON line per value is appended; the table is written beside it as Markdown."""
    seed: int = 0
    """Seed of the augmentations."""
    batch_size: int = 64
    workers: int = 4
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A kind of view and its results.

    Attributes:
        name: name of the folder or of the augmentation.
        kind: name of the generator or of the augmentation, which identifies the row of the paper.
        metrics: results of `image_metrics`.
        lost: number of unreadable pairs.
        seconds: duration of the measurement.
        views: identifier of the views: hash of the manifest, or name of the augmentation.
    """

    name: str
    kind: str
    metrics: ImageMetrics
    lost: int
    seconds: float
    views: str


def measure(options: Cost) -> list[Row]:
    """Compare and time each kind of view."""
    options = replace(options, device=str(resolve_device(options.device)))
    manifests = {folder.resolve().name: open_manifest(folder) for folder in options.views}
    if len(manifests) < len(options.views):
        raise ValueError("expected folders of views with different names, got the same name twice; rename one")
    abouts = {name: about_views(manifest) for name, manifest in manifests.items()}
    generators = named_generators(options.generators, list(manifests), options.device)
    networks = open_networks(options)
    size = options.size or next((about.side for about in abouts.values()), 224)
    keys = viewgen.list_images(options.images)
    with Progress() as progress:
        compare = Comparison(options, keys, size, networks, progress)
        rows = [
            compare.views(folder, abouts[name], generators.get(name))
            for name, folder in zip(manifests, options.views, strict=True)
        ]
        return rows + [compare.augmented(name, augment) for name, augment in augmentations(size).items()]


def open_networks(options: Cost) -> dict[str, Any]:
    """Open the networks for `image_metrics`."""
    if options.inception is not None and options.features is not None:
        raise ValueError("expected one network for FID, got --inception and --features; give one of them")
    named = {"fid": options.features, "encoder": options.encoder}
    networks: dict[str, Any] = {
        use: open_encoder(name, options.device) for use, name in named.items() if name is not None
    }
    for encoder in networks.values():
        encoder.name += f" ({encoder.hash[:8]})"
    if options.inception is not None:
        networks["fid"] = load_inception(options.inception)
    if options.lpips is not None:
        networks["lpips"] = load_lpips(options.lpips)
    return networks


@dataclass(frozen=True)
class Comparison:
    """Compares kinds of views one after another, on the same images with the same networks.

    Attributes:
        options: command-line options.
        keys: keys of all images.
        size: size in pixels at which images are compared.
        networks: network arguments of `image_metrics`.
        progress: progress display with a task per kind.
    """

    options: Cost
    keys: Sequence[str]
    size: int
    networks: dict[str, Any]
    progress: Progress

    def views(self, folder: Path, about: About, generator: viewgen.Generator | None) -> Row:
        """Compare the views of a folder; time their generator if it is given."""
        options, manifest, reader = self.options, open_manifest(folder), self._reader()
        pairs = reader(
            [(options.images, key), View(folder, path)]
            for keys, paths in keys_and_paths(manifest, options.count)
            for key, path in zip(keys, paths, strict=True)
        )
        about_row = {"name": folder.resolve().name, "kind": about.generator, "views": file_hash(manifest.path)}
        row = self._row(about_row, pairs, reader, self._count(about.views))
        if generator is None:
            return row
        make = maker_of(generator, strength=about.strength, seed=options.seed)
        milliseconds = self._timed(make, getattr(generator, "input_size", None))
        cost = replace(row.metrics, milliseconds=milliseconds, parameters=count_parameters(generator))
        return replace(row, metrics=cost)

    def augmented(self, name: str, augment: Augment) -> Row:
        """Compare and time an augmentation."""
        options, reader = self.options, self._reader()
        chosen = self._evenly(options.count)
        make, timed = (Augmenter(name, augment, options.seed) for _ in range(2))
        squares = reader([(options.images, key)] for key in chosen)
        pairs = ((images, make(images)) for (images,) in squares)
        row = self._row({"name": name, "kind": name, "views": name}, pairs, reader, len(chosen))
        milliseconds = self._timed(lambda key, image: timed(image.to(options.device)), self.size)
        return replace(row, metrics=replace(row.metrics, milliseconds=milliseconds))

    def _timed(self, make: Callable[[str, Tensor], object], size: int | None) -> float | None:
        keys = self._evenly(self.options.timed)
        return milliseconds_per_view(make, self.options.images, keys, size=size, device=self.options.device)

    def _evenly(self, count: int | None) -> list[str]:
        return [self.keys[int(place)] for place in evenly(len(self.keys), count)]

    def _row(self, about: dict[str, str], pairs: Iterable, reader: Reader, total: int) -> Row:
        started = time.perf_counter()
        reported = _with_progress(pairs, self.progress.add_task(about["name"]), total)
        metrics = image_metrics(reported, **self.networks, device=self.options.device)
        return Row(**about, metrics=metrics, lost=reader.lost, seconds=time.perf_counter() - started)

    def _reader(self) -> Reader:
        return Reader(self.size, batch_size=self.options.batch_size, workers=self.options.workers)

    def _count(self, total: int) -> int:
        return total if self.options.count is None else min(total, self.options.count)


def _with_progress(pairs: Iterable, update: Callable[[int, int], None], total: int) -> Iterator:
    """Yield the pairs and update the progress bar."""
    done = 0
    for pair in pairs:
        yield pair
        done += len(pair[0])
        update(done, total)
