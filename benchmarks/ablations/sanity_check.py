"""Check that every method learns: the small recipes, with and without views, against the untrained encoder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import nn

import sslzoo
from benchmarks.ablations import run_app
from benchmarks.ablations.encoders import features, measured_of
from ssl_eval import Result, append_results, data_name, knn_accuracy, machine, read_results
from ssl_eval.table import format_mean

METHODS = (
    "simclr", "moco-v2", "moco-v3", "simsiam", "byol", "swav", "vicreg", "barlow-twins", "dino", "gen-dino"
)  # fmt: skip
COLUMNS = ("recipe", "kNN", "above untrained", "kNN with views", "above untrained")
UNTRAINED = "untrained"
NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class SanityCheck:
    """kNN accuracy of every small recipe after a few epochs; a repeated call continues."""

    data: Path
    """Folder of training images with one subfolder per class; classes are used only for evaluation."""
    test: Path
    """Such a folder of test images."""
    views: Path | None = None
    """Synthetic views; without them, pairs are two crops of one image."""
    interpolated: Path | None = None
    """Interpolated views, for gen-dino."""
    methods: tuple[str, ...] = METHODS
    epochs: int = 6
    seeds: int = 1
    """Number of encoders trained for each cell of the table."""
    margin: float = 2.0
    """Required gain in kNN accuracy over the untrained encoder, in percentage points, averaged over the seeds."""
    out: Path = Path("runs/sanity-check")
    device: str = "auto"


@dataclass(frozen=True)
class Variant:
    """A method, with or without views."""

    method: str
    with_views: bool

    @property
    def name(self) -> str:
        """Name in the results."""
        return f"small-{self.method}" + (", views" if self.with_views else "")

    @property
    def folder(self) -> str:
        """Folder of its runs."""
        return self.name.replace(", ", "-")


def variants(options: SanityCheck) -> list[Variant]:
    """Return every method without and with views; Gen-DINO, which equals DINO without views, only with them."""
    plain = [Variant(method, False) for method in options.methods if method != "gen-dino"]
    return plain + [Variant(method, True) for method in options.methods if options.views is not None]


def run_sanity_check(options: SanityCheck) -> Iterator[str]:
    """Train and evaluate one encoder after the other; results are appended to OUT/results.jsonl.

    Yields:
        The name of each variant after its result was written.

    Raises:
        ValueError: a run failed (the message has the last line of its output), or there is nothing to train.
    """
    if not variants(options):
        raise ValueError("expected --views for gen-dino, got none; give them, or other --methods")
    for seed in range(options.seeds):
        for variant in variants(options):
            folder = options.out / variant.folder / f"seed-{seed}"
            train(options, variant, seed, folder)
            measure(options, sslzoo.load_backbone(folder / "backbone"), folder, variant.name, seed)
            yield variant.name
        measure(options, untrained(folder, seed), folder, UNTRAINED, seed)


def train(options: SanityCheck, variant: Variant, seed: int, folder: Path) -> None:
    """Run `apps/pretrain`, which continues an interrupted run and does not repeat a finished one."""
    command: list[object] = [f"small-{variant.method}", "--data", options.data, "--out", folder]
    command += ["--epochs", options.epochs, "--seed", seed, "--device", options.device]
    if variant.with_views:
        command += ["--views", options.views]
        if variant.method == "gen-dino" and options.interpolated is not None:
            command += ["--interpolated", options.interpolated]
    run_app.run(run_app.PRETRAIN, command, f"{variant.name}, seed {seed}", log=folder / "pretrain.txt")


def untrained(folder: Path, seed: int) -> nn.Module:
    """Return the initial network of the runs of a seed, which initialize the backbone first."""
    architecture = json.loads((folder / "backbone" / "backbone.json").read_text())["architecture"]
    torch.manual_seed(seed)
    return sslzoo.create_backbone(**architecture)


def measure(options: SanityCheck, backbone: nn.Module, folder: Path, name: str, seed: int) -> None:
    """Measure the kNN accuracy of one encoder and append it, unless it exists."""
    path, made = options.out / "results.jsonl", sslzoo.backbone_hash(backbone)
    if measured_of(path, name, made, data_name(options.test), seed):
        return
    began = time.perf_counter()
    train, test = features(backbone, folder / "backbone", (options.data, options.test), options.device)
    found = Result(
        task="knn",
        metric="top1",
        value=knn_accuracy(train, test, k=NEIGHBOURS)[NEIGHBOURS],
        protocol=f"k={NEIGHBOURS} T=0.07",
        backbone=made,
        data=data_name(options.test),
        seed=seed,
        machine=machine(),
        seconds=time.perf_counter() - began,
        recipe=name,
    )
    append_results(path, [found])


def read_accuracies(options: SanityCheck) -> dict[str, dict[int, float]]:
    """Return the accuracies in OUT/results.jsonl by name and seed."""
    found: dict[str, dict[int, float]] = {}
    for result in read_results(options.out / "results.jsonl"):
        if result.data != data_name(options.test):
            continue
        found.setdefault(result.recipe, {})[result.seed] = result.value
    return found


def sanity_rows(options: SanityCheck) -> list[tuple[str, ...]]:
    """Return the row of the untrained encoder and one per method: accuracies and gains."""
    found = read_accuracies(options)
    rows: list[tuple[str, ...]] = [(UNTRAINED, format_mean(list(found[UNTRAINED].values())), "", "", "")]
    for method in options.methods:
        cells: list[str] = []
        for name in (Variant(method, False).name, Variant(method, True).name):
            by_seed = found.get(name, {})
            cells += [format_mean(list(by_seed.values())), f"{gain(found, name):+.2f}" if by_seed else ""]
        rows.append((f"small-{method}", *cells))
    return rows


def gain(found: dict[str, dict[int, float]], name: str) -> float:
    """Return the accuracy of an encoder minus that of its initial network, averaged over the seeds."""
    return mean(value - found[UNTRAINED][seed] for seed, value in found[name].items())


def below_margin(options: SanityCheck) -> list[str]:
    """Return the variants whose gain is below the margin."""
    found = read_accuracies(options)
    return [variant.name for variant in variants(options) if gain(found, variant.name) < options.margin]
