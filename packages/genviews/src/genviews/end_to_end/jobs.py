"""Jobs of the quickstart. Each is a function that runs in a worker process; finished jobs are not repeated."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch

import ssl_eval
import sslzoo
import viewgen
from genviews.end_to_end import plots
from genviews.end_to_end.options import QuickstartOptions
from genviews.end_to_end.oracle import train_classifier
from genviews.end_to_end.workers import Reporter
from genviews.pretraining.job import train_encoder
from genviews.pretraining.options import DataConfig, RuntimeConfig
from genviews.recipes import CIFAR_MEAN, CIFAR_STD, RECIPES, Recipe
from genviews_core.files import atomic_write, write_json
from pairdata import LabeledImages, write_scenes
from sslzoo import DistContext
from viewgen import eldm

HAND_MADE, GENERATIVE, UNTRAINED = "hand-made", "generative", "untrained"
FROM_ENCODER = ("embeddings", "generator", "views", "interpolated", GENERATIVE, "agreement.json", "table.md")
"""Files of OUT that depend on the first encoder."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """One encoder to train and evaluate: a variant (a row of the table) and a seed."""

    variant: str
    seed: int
    images: Path
    test: Path | None
    views: Path | None = None

    @property
    def name(self) -> str:
        """Name in the progress display."""
        return f"{self.variant}, seed {self.seed}"

    def folder(self, options: QuickstartOptions) -> Path:
        """Return the folder of the run."""
        return options.out / self.variant / f"seed-{self.seed}"


def draw_scenes(root: Path, count: int, seed: int, report: Reporter) -> None:
    """Write labeled scenes on plain backgrounds whose colors are independent of the class."""
    write_scenes(root, count=count, seed=seed, habit=0.0, plain=True)
    report(count, count)


def encoder_recipe(seed: int, options: QuickstartOptions, batch_size: int = 64) -> Recipe:
    """Return a SimCLR recipe for a few minutes: small batches, large crops, strong color jitter."""
    recipe = RECIPES["small-simclr"]()
    changes = {"crop_scale": (0.5, 1.0), "jitter": (0.6, 0.6, 0.6, 0.3), "jitter_p": 1.0}
    augment = dataclasses.replace(recipe.augmentation.first, **changes, gray_p=0.5, blur_p=0.0, solarize_p=0.3)
    return dataclasses.replace(
        recipe,
        name="quickstart",
        augmentation=dataclasses.replace(recipe.augmentation, first=augment, second=augment),
        epochs=options.epochs,
        batch_size=options.batch_size or batch_size,
        base_batch_size=batch_size,
        base_lr=3e-3,
        seed=seed,
    )


def train(job: Encoder, options: QuickstartOptions, device: str, report: Reporter) -> list[ssl_eval.Result]:
    """Train and evaluate one encoder; return its results, none without test images."""
    folder = job.folder(options)
    context = DistContext(rank=0, world_size=1, device=torch.device(device))
    data = DataConfig(images=job.images, views=job.views)
    recipe, seconds = encoder_recipe(job.seed, options), options.checkpoint_seconds
    backbone = train_encoder(
        recipe,
        data,
        folder,
        context,
        runtime=RuntimeConfig(probe=False),
        on_step=report,
        on_message=report.message,
        checkpoint_seconds=seconds,
    )
    return _evaluate(job, sslzoo.load_backbone(backbone), folder, device)


def evaluate_untrained(
    job: Encoder, options: QuickstartOptions, device: str, report: Reporter
) -> list[ssl_eval.Result]:
    """Evaluate the randomly initialized network with the same seed."""
    torch.manual_seed(job.seed)
    backbone = sslzoo.create_backbone(**encoder_recipe(job.seed, options).architecture)
    results = _evaluate(job, backbone, job.folder(options), device)
    report(1, 1)
    return results


def _evaluate(job: Encoder, backbone: torch.nn.Module, folder: Path, device: str) -> list[ssl_eval.Result]:
    """Compute kNN and linear accuracy, or read them from FOLDER/results.jsonl."""
    if job.test is None:
        return []
    path, found = folder / "results.jsonl", sslzoo.backbone_hash(backbone)
    results = [result for result in ssl_eval.read_results(path) if result.backbone == found]
    if len(results) < 2:
        features = [
            ssl_eval.extract_features(backbone, labeled_images(root, device), device=device)
            for root in (job.images, job.test)
        ]
        names = {"backbone": found, "data": ssl_eval.data_name(job.test), "recipe": job.variant, "seed": job.seed}
        results = ssl_eval.evaluate_frozen(*features, **names)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, "".join(result.line() + "\n" for result in results))
    return results


def labeled_images(root: Path, device: str) -> LabeledImages:
    """Return labeled images at the encoders' input size, without augmentation."""
    return LabeledImages(root, size=32, mean=CIFAR_MEAN, std=CIFAR_STD, device=device)


def train_generator(images: Path, backbone: Path, options: QuickstartOptions, device: str, report: Reporter) -> None:
    """Embed the images and train the diffusion model on the embeddings."""
    network, expected = sslzoo.resolve_backbone(backbone)
    encoder = viewgen.ImageEncoder(network, name=HAND_MADE, device=device, **expected)
    set_aside(options.out, encoder.hash, report)
    viewgen.embed_images(images, options.out / "embeddings", encoder)
    embeddings, folder = viewgen.Embeddings.load(options.out / "embeddings"), options.out / "generator"
    config = eldm.preset(options.generator)
    if options.generator_steps is not None:
        config = dataclasses.replace(config, steps=options.generator_steps)
    seconds, on_step = options.checkpoint_seconds, sslzoo.log_steps(folder, report)
    eldm.train_eldm(
        images, embeddings, folder, config, on_step=on_step, device=device, checkpoint_seconds=seconds, workers=1
    )


def set_aside(out: Path, encoder_hash: str, report: Reporter) -> None:
    """Move the outputs of another encoder, such as this one before --epochs was raised, to OUT/earlier."""
    made_from = [json.loads(path.read_text()) for path in (out / "embeddings").glob("*.json")]
    if all(content["encoder_hash"] == encoder_hash for content in made_from):
        return
    earlier = next(path for path in (out / f"earlier{number}" for number in ("", *range(2, 1000))) if not path.exists())
    earlier.mkdir()
    for name in FROM_ENCODER:
        if (out / name).exists():
            (out / name).rename(earlier / name)
    report.message(f"the encoder has changed; outputs of the earlier one were moved to {earlier}")


def generate(
    images: Path, interpolated: bool, shard: tuple[int, int], options: QuickstartOptions, device: str, report: Reporter
) -> None:
    """Generate one shard of the views, or the interpolated views for pairs.png; both start from noised images."""
    generator = eldm.ELDMGenerator(
        options.out / "generator",
        from_image=True,
        steps=options.sampling_steps,
        guidance=options.guidance,
        device=device,
        dtype=torch.bfloat16,
    )
    viewgen.generate_views(
        images,
        options.out / ("interpolated" if interpolated else "views"),
        generator,
        strength=options.strength,
        embeddings=viewgen.Embeddings.load(options.out / "embeddings"),
        interpolate=viewgen.Interpolation(alpha=options.alpha) if interpolated else None,
        keys=plots.shown_keys(images) if interpolated else None,
        shard=shard,
        on_progress=report,
    )


def merge_views(options: QuickstartOptions, report: Reporter) -> None:
    """Write the manifests of the views of all processes."""
    for name in ("views", "interpolated"):
        viewgen.merge_journals(options.out / name)
    report(1, 1)


def measure_agreement(images: Path, test: Path, options: QuickstartOptions, device: str, report: Reporter) -> None:
    """Write OUT/agreement.json: the percentage of views to which a supervised classifier assigns the source's class."""
    path = options.out / "agreement.json"
    if path.exists():
        return
    classifier = train_classifier(images, device=device, on_step=report)
    predicted, sources = classifier.predict_views(images, options.out / "views")
    agreement, other = ssl_eval.class_agreement(predicted, sources), ssl_eval.far_agreement(predicted, sources)
    found = {"views": agreement.share, "error": agreement.error, "other_images": other.share}
    write_json(path, found | {"test_images": classifier.accuracy(test), "count": agreement.count})


def draw_plots(images: Path, options: QuickstartOptions, report: Reporter) -> None:
    """Draw pairs.png and curves.png."""
    plots.draw_pairs(images, options.out / "views", options.out / "interpolated", options.out / "pairs.png")
    plots.draw_curves(options.out, options.out / "curves.png")
    report(1, 1)


def read_agreement(options: QuickstartOptions) -> dict[str, float] | None:
    """Return the content of OUT/agreement.json; None if there is no such file."""
    path = options.out / "agreement.json"
    return json.loads(path.read_text()) if path.exists() else None
