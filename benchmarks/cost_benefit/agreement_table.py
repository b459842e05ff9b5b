r"""Class agreement: how often an independent classifier assigns views the class of their source image.

    uv run benchmarks/cost_benefit agreement my/train runs/views [VIEWS ...] --classifier resnet20-cifar10.th
    uv run benchmarks/cost_benefit agreement my/train runs/views --classifier runs/other/backbone --labelled my/test

IMAGES has one folder per class. Views can help training if their agreement is close to that of the images themselves;
the last row is the baseline of views of random other images. The classifier is a checkpoint with a linear layer
(torchvision, timm, CIFAR ResNets; classes in the order of folder names), or, with --labelled, any backbone with a kNN
classifier (k = 20) on labeled images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table
from torch import Tensor

import ssl_eval
import sslzoo
import viewgen
from benchmarks.cost_benefit.encoders import open_encoder
from benchmarks.cost_benefit.manifest_reader import Reader, View, evenly, keys_and_paths
from genviews_core.device import resolve_device
from ssl_eval import ClassAgreement, Features, Result, class_agreement, far_agreement
from viewgen.manifest import Manifest, open_manifest

NEIGHBORS = 20
Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Class agreement of views, and of the images themselves, by an independent classifier."""

    images: Annotated[Path, tyro.conf.Positional]
    """Images with one folder per class."""
    views: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of views with a manifest.parquet."""
    classifier: str
    """Checkpoint of a classifier; with --labelled, any encoder, as in --encoder of the other tables."""
    labelled: Path | None = None
    """Labeled images for kNN classification with an encoder, one folder per class; not the images of the views."""
    count: int | None = None
    """Number of evenly spaced views per folder; default: all."""
    out: Path | None = None
    """File to which a JSON line per row is appended."""
    batch_size: int = 256
    workers: int = 4
    device: str = "auto"


def main(arguments: Sequence[str]) -> Table:
    """Return the table for the command-line arguments."""
    options = tyro.cli(Agreement, description=__doc__, args=arguments)
    options = replace(options, device=str(resolve_device(options.device)))
    manifests = [open_manifest(folder) for folder in options.views]
    classes = class_folders(options.images)
    side, name, classify = open_classify(options, classes)
    table = Table("views", "class agreement, %", "standard error", "count", "lost", title=f"by {name}")
    for row, found, lost in measure(options, manifests, classes, side, classify):
        table.add_row(row, f"{found.share:.1f}", f"{found.error:.1f}", f"{found.count}", f"{lost}" if lost else "")
        if options.out is not None:
            ssl_eval.append_results(options.out, [_result(row, found, name, options)])
    return table


def measure(
    options: Agreement, manifests: Sequence[Manifest], classes: Sequence[str], side: int, classify: Classify
) -> Iterator[tuple[str, ClassAgreement, int]]:
    """Yield (name, agreement, number of unreadable images) for the images, each folder of views, and other images."""
    keys = viewgen.list_images(options.images)
    own = [keys[int(place)] for place in evenly(len(keys), options.count)]
    found, lost = predictions(
        options, options.images, ((key, (options.images, key)) for key in own), classes, side, classify
    )
    yield "the images", class_agreement(*found), lost
    for folder, manifest in zip(options.views, manifests, strict=True):
        listed = (pair for some in keys_and_paths(manifest, options.count) for pair in zip(*some, strict=True))
        pairs = ((key, View(folder, path)) for key, path in listed)
        found, lost = predictions(options, folder, pairs, classes, side, classify)
        yield folder.resolve().name, class_agreement(*found), lost
    yield "views of other images", far_agreement(*found), lost


def predictions(
    options: Agreement,
    folder: Path,
    pairs: Iterable[tuple[str, tuple[Path, str]]],
    classes: Sequence[str],
    side: int,
    classify: Classify,
) -> tuple[tuple[Tensor, Tensor], int]:
    """Return predicted and true classes of (key, image or view) pairs, and the number of unreadable images.

    Raises:
        ValueError: a key has no class, or no view can be read.
    """
    numbers = {name: torch.tensor(number) for number, name in enumerate(classes)}
    reader = Reader(side, batch_size=options.batch_size, workers=options.workers)
    rows = ([_class_of(key, numbers, folder), part] for key, part in pairs)
    read = [(classify(images), labels) for labels, images in reader(rows)]
    if not read:
        raise ValueError(f"expected views in {folder}, got none that can be read; run viewgen verify {folder}")
    return (torch.cat([guess for guess, _ in read]), torch.cat([label for _, label in read])), reader.lost


def open_classify(options: Agreement, classes: Sequence[str]) -> tuple[int, str, Classify]:
    """Return the image size in pixels, the name of the classifier, and a function from 8-bit images to classes.

    Raises:
        ValueError: the classifier cannot be opened, or has other classes.
    """
    if options.labelled is not None:
        encoder = open_encoder(options.classifier, options.device)
        return encoder.size, f"{NEIGHBORS} neighbors, {encoder.name}", knn_classifier(encoder, options, classes)
    path = Path(options.classifier)
    if not path.is_file():
        raise ValueError(f"expected a classifier's file, got {path}; give a file, or an encoder with --labelled FOLDER")
    network, about = sslzoo.load_classifier(path)
    if network.head.out_features != len(classes):
        raise ValueError(
            f"expected a classifier of the {len(classes)} classes of {options.images}, got one of "
            f"{network.head.out_features}; give another file, or an encoder with --labelled FOLDER"
        )
    read = viewgen.ImageEncoder(network, name=path.name, device=options.device, **about)
    return read.size, path.name, lambda images: read(images).argmax(1).cpu()


def knn_classifier(encoder: viewgen.ImageEncoder, options: Agreement, classes: Sequence[str]) -> Classify:
    """Return a kNN classifier on the labeled images."""
    assert options.labelled is not None
    if class_folders(options.labelled) != list(classes):
        raise ValueError(
            f"expected the class folders of {options.images} in {options.labelled}, got other ones; give --labelled "
            "a folder with the same classes"
        )
    numbers = {name: torch.tensor(number) for number, name in enumerate(classes)}
    reader = Reader(encoder.size, batch_size=options.batch_size, workers=options.workers)
    keys = viewgen.list_images(options.labelled)
    rows = ([_class_of(key, numbers, options.labelled), (options.labelled, key)] for key in keys)
    read = [(encoder(images), labels) for labels, images in reader(rows)]
    known = Features(torch.cat([features for features, _ in read]), torch.cat([labels for _, labels in read]))
    k = min(NEIGHBORS, len(known))

    def classify(images: Tensor) -> Tensor:
        features = encoder(images)
        asked = Features(features, known.labels.new_zeros(len(features)) + known.labels[0])
        return ssl_eval.knn_predictions(known, asked, k=k, num_classes=len(classes))[k].cpu()

    return classify


def class_folders(images: Path) -> list[str]:
    """Return the sorted class names.

    Raises:
        ValueError: the folder does not exist, or has fewer than two class folders.
    """
    if not images.is_dir():
        raise ValueError(f"expected a folder of images, got {images}; give a folder with one folder per class")
    found = sorted({key.partition("/")[0] for key in viewgen.list_images(images) if "/" in key})
    if len(found) < 2:
        raise ValueError(f"expected two class folders or more in {images}, got {len(found)}; give one folder per class")
    return found


def _class_of(key: str, numbers: dict[str, Tensor], folder: Path) -> Tensor:
    name = key.partition("/")[0]
    if name not in numbers:
        raise ValueError(
            f"expected an image of the classes known in {folder}, got {key}; give the images of these views"
        )
    return numbers[name]


def _result(row: str, found: ClassAgreement, classifier: str, options: Agreement) -> Result:
    return Result(
        task="class_agreement",
        metric="percent",
        value=found.share,
        protocol=f"classifier={classifier} views={found.count}",
        backbone="",
        data=options.images.resolve().name,
        seed=0,
        machine=ssl_eval.machine(),
        seconds=0.0,
        recipe=row,
    )
