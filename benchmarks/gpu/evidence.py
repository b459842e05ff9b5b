"""Measure the effect of views within minutes: encoder, diffusion model, views, encoders with and without views.

    uv run benchmarks/gpu evidence --minutes 9 --data cifar10 --classifier resnet20-cifar10.th --out runs/gpu

A short trial measures the speed of the machine, from which epochs and steps are chosen to fit the given minutes.
Results are written immediately. OUT holds weights in half precision; the same command with the OUT of another machine
continues: it trains the diffusion model further and skips finished variants.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import sslzoo
import viewgen
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cuda_graphs import tune
from benchmarks.gpu.device_eldm import DeviceELDM
from benchmarks.gpu.images import Split, read_data
from benchmarks.gpu.portable_state import load_progress, load_weights, save_progress, save_weights
from benchmarks.gpu.pretraining import Pretraining, accuracies, features_of
from benchmarks.gpu.records import Recorder
from benchmarks.gpu.trial import Speeds, finish_trial, measure_speeds, sizes, start_trial
from benchmarks.gpu.variants import PLAIN, Bench, Variant, run_variants, save_data
from benchmarks.gpu.view_sources import agreements, contact_sheet, load_classifier, nearest

ENCODER, GENERATOR, VIEWS = 0.15, 0.35, 0.12
"""Fractions of the minutes; the variants use the remaining time."""
MARGIN = 0.85  # plan with this fraction of the measured speed


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Measure the effect of views on 32 px images, within the given minutes on one device."""

    minutes: float = 9.0
    data: str = "cifar10"
    """A folder or archive with train/CLASS and test/CLASS; "cifar10" looks for cifar10.tar.xz."""
    out: Path = Path("runs/gpu")
    """Weights, progress and contact sheet; a run with this folder on another machine continues from it."""
    results: Path | None = None
    """JSON-lines file of results; default: OUT/results.jsonl."""
    classifier: Path | None = None
    """Checkpoint of a classifier, to measure the class agreement of views."""
    seeds: int = 2
    variants: tuple[str, ...] = (PLAIN, "generative", "retrieved")
    """Any of hand-made, generative, interpolated, retrieved; each is trained from scratch with every seed."""
    variant_epochs: int | None = None
    """Epochs of each variant; default: those of the previous run, or as many as fit into the time."""
    guidance: float = 4.0
    sampling_steps: int = 10
    count: int | None = None
    """Use this many images of each split; default: all."""
    tiny: bool = False
    """Use tiny networks, for tests."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(options: Evidence) -> None:
    """Run all parts; a failed part is recorded, and parts that do not depend on it still run."""
    tune(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    record = Recorder(options.results or options.out / "results.jsonl", "evidence")
    Run(options, record, Budget(options.minutes, reserve=min(15.0, 3 * options.minutes))).run()


class Run:
    """One run: its parts in order, and the state they share."""

    def __init__(self, options: Evidence, record: Recorder, budget: Budget) -> None:
        self.options, self.record, self.budget = options, record, budget
        self.recipe, self.config = sizes(options.tiny)
        self.progress = load_progress(options.out)
        self.views: dict[str, Tensor] = {}

    def run(self) -> None:
        """Run all parts in order."""
        self.speeds, (self.train, self.test) = self._measure_while(self._read)
        about = {name: value for name, value in asdict(self.speeds).items() if name != "notes"}
        self.record("speeds", about={"notes": list(self.speeds.notes)}, **about, start=self.budget.spent)
        self.recipe = replace(self.recipe, capture=self.speeds.capture_pairs)
        for part in (self.encoder, self.generator, self.generate_views, self.inspect_views, self.train_variants):
            try:
                part()
            except Exception as error:
                self.record(f"{part.__name__} failed", reason=f"{type(error).__name__}: {error}"[:500])
                traceback.print_exc()
        self.record("evidence", seconds=self.budget.spent)

    def _read(self) -> tuple[Split, Split]:
        train, test = read_data(self.options.data, self.recipe.size)
        device = self.options.device
        return train.first(self.options.count).to(device), test.first(self.options.count).to(device)

    def _measure_while(self, read: Callable[[], tuple[Split, Split]]) -> tuple[Speeds, tuple[Split, Split]]:
        """Measure the speeds and read the data; on a GPU, a subprocess measures while the images are decoded."""
        options = self.options
        settings = {"sampling_steps": options.sampling_steps, "guidance": options.guidance}
        if options.device == "cpu":
            return measure_speeds(self.recipe, self.config, "cpu", **settings, batches=1), read()
        words = ["--device", options.device, "--sampling-steps", str(options.sampling_steps)]
        trial = start_trial([*words, *["--tiny"] * options.tiny])
        data = read()
        speeds = finish_trial(trial)
        if speeds is None:  # the trial failed: measure a few steps without CUDA graphs
            more = {"batches": 2, "recorded": False}
            speeds = measure_speeds(self.recipe, self.config, options.device, **settings, **more)
        return speeds, data

    def encoder(self) -> None:
        """Load the encoder that conditions the diffusion model from OUT, or train it with hand-made views."""
        kept, count = load_weights(self.options.out, "encoder"), len(self.train)
        if kept:
            backbone = sslzoo.create_backbone(**self.recipe.backbone)
            backbone.load_state_dict(kept)
            self.backbone = backbone.to(self.options.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]
        else:
            seconds = self.budget.share(ENCODER)
            epochs = max(1, int(MARGIN * seconds * self.speeds.pairs / count))
            training = Pretraining(self.train, self.recipe, epochs=epochs, seed=1000)
            taken = training.run()
            self.backbone = training.method.backbone
            save_weights(self.options.out, "encoder", self.backbone.state_dict())
            self.progress["encoder"] = {"epochs": epochs, "images": count}
            save_progress(self.options.out, self.progress)
            found = accuracies(self.backbone, self.train, self.test, self.recipe)
            self.record("encoder", about=self.progress["encoder"], **found, seconds=taken)
        self.embeddings = features_of(self.backbone, self.train, half=self.recipe.half).features

    def generator(self) -> None:
        """Train the diffusion model further; the time of the encoder is added if that was loaded."""
        options = self.options
        kept = load_weights(options.out, "eldm")
        eldm = DeviceELDM(self.config, self.train, self.embeddings, capture=self.speeds.capture_images)
        if kept:
            eldm.load(kept)
        wanted = GENERATOR + (ENCODER if kept else 0)
        self.learned = eldm.learn(self.budget.share(wanted), most=4 if options.tiny else None)
        self.eldm = eldm
        save_weights(options.out, "eldm", eldm.state())
        self.progress["generator"] = {"images": eldm.images_seen}
        save_progress(options.out, self.progress)
        self.record("generator", about={"kept": bool(kept)}, **self.learned)

    def generate_views(self) -> None:
        """Generate a generative and an interpolated view of each image, or of as many as time permits."""
        options, began, count = self.options, self.budget.spent, len(self.train)
        most = int(MARGIN * self.budget.share(VIEWS) * self.speeds.views)
        steps = max(4, min(options.sampling_steps, options.sampling_steps * most // count))
        settings = {"steps": steps, "guidance": options.guidance}
        self.views["generative"] = self.eldm.generate(self.embeddings, **settings, seed=1)
        partner = torch.randperm(count, generator=torch.Generator().manual_seed(2)).to(self.embeddings.device)
        mixed = viewgen.slerp(self.embeddings, self.embeddings[partner], 0.5)[: max(min(count, 256), most - count)]
        self.views["interpolated"] = self.eldm.generate(mixed, **settings, seed=2)
        seconds = self.budget.spent - began
        made = sum(len(images) for images in self.views.values())
        self.record("views", about=settings, views=made, seconds=seconds, ms_a_view=1000 * seconds / made)

    def inspect_views(self) -> None:
        """Add retrieved views as a baseline, measure class agreement and save a contact sheet."""
        self.views["retrieved"] = self.train.images[nearest(self.embeddings)]
        contact_sheet(self.options.out / "sheet.png", self.train, self.views)
        if self.options.classifier is not None:
            classify = load_classifier(self.options.classifier, self.options.device)
            self.agreement = agreements(classify, self.train, self.views)
            about = {"classifier": self.options.classifier.name, **self._generator_info()}
            self.record("class agreement", about=about, **self.agreement)

    def train_variants(self) -> None:
        """Train the variants in the remaining time; skip those that an earlier run finished."""
        options, done = self.options, set(self.progress.get("done", ()))
        stand = self._generator_info()["generator_images"]
        names = [name for name in options.variants if name == PLAIN or len(self.views.get(name, ())) == len(self.train)]
        epochs = options.variant_epochs or self.progress.get("variant_epochs")
        planned = [(name, seed) for seed in range(options.seeds) for name in names]
        if epochs is None:
            start = 20.0 if options.device != "cpu" else 0.0  # start-up of a process
            seconds = MARGIN * max(0.0, self.budget.left - start)
            epochs = max(1, int(seconds * self.speeds.pairs / (len(self.train) * max(1, len(planned)))))
        generated = ("generative", "interpolated")
        marks = {(name, seed): f"{name}/{seed}/{epochs}/{stand * (name in generated)}" for name, seed in planned}
        wanted = [
            Variant(name=name, seed=seed, epochs=epochs) for name, seed in planned if marks[name, seed] not in done
        ]
        views = {name: self.views[name] for name in names if name != PLAIN}
        about = {**self._generator_info(), "agreement": getattr(self, "agreement", {})}
        with TemporaryDirectory() as work:  # not in OUT, whose files are copied between machines
            save_data(Path(work), self.train, self.test, views)
            bench = Bench(
                work=Path(work),
                recipe=self.recipe,
                device=options.device,
                record=self.record,
                about=about,
                deadline=time.monotonic() + self.budget.left,
            )
            ended = run_variants(wanted, bench)
        self.progress |= {
            "variant_epochs": epochs,
            "done": sorted(done | {marks[variant.name, variant.seed] for variant in ended}),
        }
        save_progress(options.out, self.progress)

    def _generator_info(self) -> dict[str, Any]:
        return {
            "generator_images": self.progress.get("generator", {}).get("images", 0),
            "guidance": self.options.guidance,
            "sampling_steps": self.options.sampling_steps,
        }
