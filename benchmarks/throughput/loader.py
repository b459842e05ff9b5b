"""From files to training batches: our loaders, torchvision's, lightly's and FFCV's on the same files and cores."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.data import LightlyDataset
from lightly.transforms import SimSiamTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import sslzoo
from benchmarks.throughput.step import Ours
from pairdata import Augment, FFCVLoader, FolderLoader, pack_records
from sslzoo.methods import SimSiam

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STORED = {32: 32, 224: 288}
"""Size in pixels of the views, and of the decoded squares that they are cropped from."""
NAMES = ("records, raw", "records, jpeg", "folders", "torchvision", "lightly", "FFCV's Loader")
Pairs = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark:
    """Images or pairs per second of each loader, with equally many workers (processes, or threads for records).

    All run in turn, round by round; the result is the median round.

    squares: batches of images decoded to uint8 squares.
    pairs: batches of two normalized views of each image, by SimSiam's augmentations; images are decoded once.
    training: pairs as above and a step of SimSiam with a ResNet-18; the time a step waits for its pairs.
    """

    images: int = 512
    """Number of synthetic JPEGs of 500 x 400 px, quality 90."""
    batch_size: int = 64
    workers: int = 2
    rounds: int = 5
    steps: int = 6
    """Number of training steps."""
    sizes: tuple[int, ...] = (32, 224)
    work: tuple[str, ...] = ("squares", "pairs", "training")
    cpu_seconds: bool = False
    """Measure CPU time without workers instead of wall-clock time, for a machine that is not idle."""
    device: str = "cpu"
    """Device of the training; squares and pairs stay on the CPU."""


def measure_loaders(options: LoaderBenchmark) -> list[tuple[str, ...]]:
    """Return a row per kind of work and size."""
    if options.cpu_seconds:
        options = replace(options, workers=0)
    torch.set_num_threads(max(1, options.workers))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        draw_photographs(images, options.images)
        for size in options.sizes:
            records = {name: Path(folder) / f"{name}-{size}.beton" for name in ("raw", "jpeg")}
            pack_records(images, records["raw"], size=STORED[size], mode="raw")
            pack_records(images, records["jpeg"], size=STORED[size], mode="jpeg")
            measures = {"squares": _squares, "pairs": _pairs, "training": _training}
            rows += [row for name in options.work for row in measures[name](images, records, size, options)]
    return rows


def draw_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of noise at several scales, of about 80 KB, as photographs of that size have."""
    for i in range(count):
        rng = np.random.default_rng(i)
        pixels = np.zeros((400, 500, 3))
        for detail, strength in ((6, 60), (25, 30), (100, 15), (400, 6)):
            coarse = rng.normal(size=(detail * 4 // 5, detail, 3)).astype(np.float32)
            layers = [Image.fromarray(coarse[..., c]).resize((500, 400), Image.Resampling.BICUBIC) for c in range(3)]
            pixels += strength * np.stack([np.asarray(layer) for layer in layers], -1)
        path = folder / str(i % 10) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + pixels).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def _ours(images: Path, records: dict[str, Path], size: int, options: LoaderBenchmark, device: str) -> dict:
    common = {"batch_size": options.batch_size, "workers": options.workers, "device": device}
    return {
        "records, raw": FFCVLoader(records["raw"], **common),
        "records, jpeg": FFCVLoader(records["jpeg"], **common),
        "folders": FolderLoader(images, size=STORED[size], **common),
    }


def _baselines(
    images: Path, transform: Callable, two_views: Callable, options: LoaderBenchmark
) -> dict[str, DataLoader]:
    def loader(dataset) -> DataLoader:
        return DataLoader(
            dataset,
            options.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=options.workers,
            persistent_workers=options.workers > 0,
        )

    torchvision = ImageFolder(str(images), transform=transform)
    lightly = LightlyDataset(str(images), transform=two_views)  # pyright: ignore[reportArgumentType]
    return {"torchvision": loader(torchvision), "lightly": loader(lightly)}


def _squares(images: Path, records: dict[str, Path], size: int, options: LoaderBenchmark) -> list[tuple[str, ...]]:
    side = STORED[size]
    square = v2.Compose([v2.Resize((side, side)), v2.PILToTensor()])
    loaders = _ours(images, records, size, options, "cpu") | _baselines(images, square, square, options)
    work: dict[str, Callable[[], object]] = {name: lambda it=it: _exhaust(it) for name, it in loaders.items()}
    if (ffcv := _ffcv_loader(records["jpeg"], options)) is not None:
        work["FFCV's Loader"] = lambda: _exhaust(ffcv)
    return [_row(f"squares of {side} px, images/s", _measure(work, options))]


def _ffcv_loader(records: Path, options: LoaderBenchmark) -> Iterable | None:
    """Return FFCV's own loader of the images in the same file; None if it is not installed."""
    try:
        from ffcv.loader import Loader, OrderOption  # pyright: ignore[reportMissingImports]
        from ffcv.reader import Reader  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    (file,) = records.glob("*.beton")
    unused: Any = {name: None for name in Reader(str(file)).field_names if name not in ("real", "label")}
    order = {"order": OrderOption.RANDOM, "drop_last": True, "os_cache": True}
    return Loader(str(file), options.batch_size, num_workers=max(1, options.workers), pipelines=unused, **order)


def _pairs(images: Path, records: dict[str, Path], size: int, options: LoaderBenchmark) -> list[tuple[str, ...]]:
    work = {name: lambda pairs=pairs: _exhaust(pairs()) for name, pairs in _of_pairs(images, records, size, options)}
    return [_row(f"pairs of {size} px, pairs/s", _measure(work, options))]


def _of_pairs(
    images: Path, records: dict[str, Path], size: int, options: LoaderBenchmark, device: str = "cpu"
) -> list[tuple[str, Pairs]]:
    augment, generator = Augment(size=size), torch.Generator().manual_seed(0)

    def ours(loader) -> Pairs:
        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in loader:
                sizes = batch.sizes[:, 0]
                yield augment(batch.real, sizes, generator), augment(batch.real, sizes, generator)

        return pairs

    def theirs(loader: DataLoader) -> Pairs:
        return lambda: ((batch[0][0].to(device), batch[0][1].to(device)) for batch in loader)

    made = [(name, ours(it)) for name, it in _ours(images, records, size, options, device).items()]
    views = simsiam_views(size)
    twice = _Twice(views)
    baselines = _baselines(images, twice, SimSiamTransform(input_size=size), options)
    return made + [(name, theirs(it)) for name, it in baselines.items()]


@dataclass(frozen=True)
class _Twice:
    """Transform that returns two views of an image."""

    transform: Callable

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        return self.transform(image), self.transform(image)


def simsiam_views(size: int) -> v2.Transform:
    """Return SimSiam's augmentations in torchvision, for PIL images."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(max(3, size // 10 | 1), (0.1, 2.0))], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def _training(images: Path, records: dict[str, Path], size: int, options: LoaderBenchmark) -> list[tuple[str, ...]]:
    torch.manual_seed(0)
    model = Ours(SimSiam(sslzoo.create_backbone("resnet18", cifar_stem=size <= 64))).to(options.device)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    shares, speeds = {}, {}
    for name, pairs in _of_pairs(images, records, size, options, options.device):
        waited, total = _train(model, pairs, options)
        shares[name], speeds[name] = waited / total, options.steps * options.batch_size / total
    waiting = tuple(f"{100 * shares[name]:.0f}%" if name in shares else "-" for name in NAMES)
    return [
        _row(f"training, {size} px, pairs/s", speeds),
        (f"training, {size} px, waiting for pairs", *waiting, "", ""),
    ]


def _train(model: nn.Module, pairs: Pairs, options: LoaderBenchmark) -> tuple[float, float]:
    """Return the seconds that steps waited for their pairs and the seconds of all steps, after a warm-up step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    waited, began, source = 0.0, 0.0, _endless(pairs)
    for step in range(options.steps + 1):
        if step == 1:
            began, waited = time.perf_counter(), 0.0
        asked = time.perf_counter()
        views = [view.contiguous(memory_format=torch.channels_last) for view in next(source)]
        _synchronize(options.device)
        waited += time.perf_counter() - asked
        with torch.autocast(options.device, torch.bfloat16):
            loss = model(*views)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _synchronize(options.device)
    return waited, time.perf_counter() - began


def _endless(pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from pairs()


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _measure(work: Mapping[str, Callable[[], object]], options: LoaderBenchmark) -> dict[str, float]:
    """Return the items per second of each, measured in turn."""
    read = options.images // options.batch_size * options.batch_size
    clock = time.process_time if options.cpu_seconds else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(1 + options.rounds):
        for name, run in work.items():
            began = clock()
            run()
            if turn:  # the first round is a warm-up
                seconds[name].append(clock() - began)
    return {name: read / statistics.median(taken) for name, taken in seconds.items()}


def _exhaust(batches: Iterable) -> None:
    for _ in batches:
        pass


def _row(what: str, measured: dict[str, float]) -> tuple[str, ...]:
    cells = (f"{measured[name]:.0f}" if name in measured else "-" for name in NAMES)
    ratios = (f"{measured[name] / measured['torchvision']:.1f}x" for name in NAMES[:2])
    return (what, *cells, *ratios)
