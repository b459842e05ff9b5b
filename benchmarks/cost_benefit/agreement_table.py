r"""How often an independent classifier gives views the class of their images.

    uv run benchmarks/cost_benefit agreement my/train runs/views [VIEWS ...] --classifier resnet20-cifar10.th
    uv run benchmarks/cost_benefit agreement my/train runs/views --classifier runs/other/backbone --labelled my/test

IMAGES has one folder a class. Views are worth training on where the figure comes near that of the images themselves;
views of random other images have that of the last row. A classifier is a file with a linear layer (torchvision, timm,
CIFAR ResNets: classes in the order of the folders' names), or any backbone with --labelled: then its 20 nearest
labelled images vote.
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
from encoders import open_encoder
from genviews_core.device import resolve_device
from rows import Reader, View, evenly, keys_and_paths
from ssl_eval import ClassAgreement, Features, Result, class_agreement, far_agreement
from viewgen.manifest import Manifest, open_manifest

NEIGHBOURS = 20
Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The share of views, and of the images themselves, that have the image's class by an independent classifier."""

    images: Annotated[Path, tyro.conf.Positional]
    """One folder a class."""
    views: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders with a manifest.parquet: those in question and their rivals, such as retrieved ones."""
    classifier: str
    """A classifier's file; with --labelled any encoder, named as --encoder of the other tables."""
    labelled: Path | None = None
    """Images by which an encoder without a linear layer classifies, one folder a class; not those of the views."""
    count: int | None = None
    """Views of each folder, evenly spaced; all without."""
    out: Path | None = None
    """File that gets a JSON line for each row."""
    batch_size: int = 256
    workers: int = 4
    device: str = "auto"


def main(arguments: Sequence[str]) -> Table:
    """The table for a command line."""
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
    """The images themselves, each folder of views, and views of other images: name, figure, unreadable ones."""
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
    """Predicted and true classes of (key, its image or view) pairs, and how many could not be read.

    Raises:
        ValueError: a key without a class, or no view that can be read.
    """
    numbers = {name: torch.tensor(number) for number, name in enumerate(classes)}
    reader = Reader(side, batch_size=options.batch_size, workers=options.workers)
    rows = ([_class_of(key, numbers, folder), part] for key, part in pairs)
    read = [(classify(images), labels) for labels, images in reader(rows)]
    if not read:
        raise ValueError(f"expected views in {folder}, got none that can be read; run viewgen verify {folder}")
    return (torch.cat([guess for guess, _ in read]), torch.cat([label for _, label in read])), reader.lost


def open_classify(options: Agreement, classes: Sequence[str]) -> tuple[int, str, Classify]:
    """Side of the images in pixels, the classifier's name, and 8-bit images to classes.

    Raises:
        ValueError: it cannot be opened, or knows other classes.
    """
    if options.labelled is not None:
        encoder = open_encoder(options.classifier, options.device)
        return encoder.size, f"{NEIGHBOURS} neighbours, {encoder.name}", by_neighbours(encoder, options, classes)
    path = Path(options.classifier)
    if not path.is_file():
        raise ValueError(f"expected a classifier's file, got {path}; give a file, or an encoder with --labelled FOLDER")
    network, about = sslzoo.open_classifier(path)
    if network.head.out_features != len(classes):
        raise ValueError(
            f"expected a classifier of the {len(classes)} classes of {options.images}, got one of "
            f"{network.head.out_features}; give another file, or an encoder with --labelled FOLDER"
        )
    read = viewgen.ImageEncoder(network, name=path.name, device=options.device, **about)
    return read.size, path.name, lambda images: read(images).argmax(1).cpu()


def by_neighbours(encoder: viewgen.ImageEncoder, options: Agreement, classes: Sequence[str]) -> Classify:
    """The vote of the nearest labelled images."""
    assert options.labelled is not None
    if class_folders(options.labelled) != list(classes):
        raise ValueError(
            f"expected the class folders of {options.images} in {options.labelled}, got other ones; give --labelled "
            "a folder of the same classes"
        )
    numbers = {name: torch.tensor(number) for number, name in enumerate(classes)}
    reader = Reader(encoder.size, batch_size=options.batch_size, workers=options.workers)
    keys = viewgen.list_images(options.labelled)
    rows = ([_class_of(key, numbers, options.labelled), (options.labelled, key)] for key in keys)
    read = [(encoder(images), labels) for labels, images in reader(rows)]
    known = Features(torch.cat([features for features, _ in read]), torch.cat([labels for _, labels in read]))
    k = min(NEIGHBOURS, len(known))

    def classify(images: Tensor) -> Tensor:
        features = encoder(images)
        asked = Features(features, known.labels.new_zeros(len(features)) + known.labels[0])
        return ssl_eval.knn_predictions(known, asked, k=k, num_classes=len(classes))[k].cpu()

    return classify


def class_folders(images: Path) -> list[str]:
    """The names of the classes, in order.

    Raises:
        ValueError: no such folder, or the images do not lie in two folders or more.
    """
    if not images.is_dir():
        raise ValueError(f"expected a folder of images, got {images}, which is none; give one folder a class")
    found = sorted({key.partition("/")[0] for key in viewgen.list_images(images) if "/" in key})
    if len(found) < 2:
        raise ValueError(f"expected two class folders or more in {images}, got {len(found)}; give one folder a class")
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
