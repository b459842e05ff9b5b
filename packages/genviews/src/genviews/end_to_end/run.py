"""The quickstart, Gen-SIS on two cores: an encoder, a diffusion model of its embeddings, views, a second encoder."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch

import ssl_eval
import sslzoo
import viewgen
from genviews.end_to_end import plots
from genviews.end_to_end.options import QuickstartOptions
from genviews.pretraining.job import train_encoder
from genviews.pretraining.options import DataConfig
from genviews.recipes import CIFAR_MEAN, CIFAR_STD, RECIPES
from genviews.run_config import write_config
from genviews_core.files import atomic_write
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress
from pairdata import LabeledImages, write_scenes
from sslzoo import DistContext, barrier
from viewgen import eldm

RECIPE_OF = {"vanilla": "small-dino", "generative": "small-gen-dino"}
SCENES_TRAIN, SCENES_TEST = 3000, 1000


def run(options: QuickstartOptions) -> None:
    """Run every stage in turn; a finished stage is not repeated."""
    worker = sslzoo.init_distributed(os.environ, options.device)
    with lock_folder(options.out) if worker.is_main else nullcontext():
        _run_stages(options, worker)


def _run_stages(options: QuickstartOptions, worker: DistContext) -> None:
    started = time.monotonic()
    write_config(options.out, "quickstart", options)
    with Progress(shown=worker.is_main) as progress:
        images, test = _images(options, worker, progress)
        plain = DataConfig(images=images)
        vanilla = [_encoder("vanilla", seed, plain, options, worker, progress) for seed in range(options.seeds)]
        views, mixed = _generate(images, vanilla[0], options, worker, progress)
        richer = DataConfig(images=images, views=views, interpolated=mixed)
        generative = [_encoder("generative", seed, richer, options, worker, progress) for seed in range(options.seeds)]
        if worker.is_main:
            if test:
                _evaluate({"vanilla": vanilla, "generative": generative}, images, test, options, worker, progress)
            plots.draw_pairs(images, views, mixed, options.out / "pairs.png")
            plots.draw_curves(options.out, options.out / "curves.png")
            _report(options, progress, time.monotonic() - started)
    barrier()


def _images(options: QuickstartOptions, worker: DistContext, progress: Progress) -> tuple[Path, Path | None]:
    """Return the folders of the user, or those of procedural scenes."""
    if options.data is not None:
        return options.data, options.test
    train, test = options.out / "scenes" / "train", options.out / "scenes" / "test"
    if worker.is_main:
        update = progress.add_task("scenes")
        write_scenes(train, count=SCENES_TRAIN, seed=0)
        update(SCENES_TRAIN, SCENES_TRAIN + SCENES_TEST)
        write_scenes(test, count=SCENES_TEST, seed=1)
        update(SCENES_TRAIN + SCENES_TEST, SCENES_TRAIN + SCENES_TEST)
    barrier()
    return train / "images", test / "images"


def _encoder(
    variant: str, seed: int, data: DataConfig, options: QuickstartOptions, worker: DistContext, progress: Progress
) -> Path:
    """Train one encoder of one variant."""
    recipe = dataclasses.replace(RECIPES[RECIPE_OF[variant]](), epochs=options.epochs, seed=seed)
    if options.batch_size is not None:
        recipe = dataclasses.replace(recipe, batch_size=options.batch_size)
    update = progress.add_task(f"{variant} encoder" + (f", seed {seed}" if options.seeds > 1 else ""))
    out = options.out / variant / f"seed-{seed}"
    backbone = train_encoder(
        recipe,
        data,
        out,
        worker,
        on_step=update,
        on_message=progress.message,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    barrier()
    return backbone


def _generate(
    images: Path, backbone: Path, options: QuickstartOptions, worker: DistContext, progress: Progress
) -> tuple[Path, Path]:
    """Embed, train the diffusion model, then generate one generative and one interpolated view per image."""
    embeddings = _embed(images, backbone, options, worker, progress)
    config = eldm.preset(options.generator)
    if options.generator_steps is not None:
        config = dataclasses.replace(config, steps=options.generator_steps)
    folder = options.out / "generator"
    update = sslzoo.log_steps(folder, progress.add_task("diffusion model")) if worker.is_main else None
    device, seconds = str(worker.device), options.checkpoint_seconds
    eldm.train_eldm(images, embeddings, folder, config, on_step=update, device=device, checkpoint_seconds=seconds)
    barrier()

    generator = eldm.ELDMGenerator(folder, steps=options.sampling_steps, device=device, dtype=torch.bfloat16)
    shard = (worker.rank, worker.world_size)
    for name, interpolation in (("views", None), ("interpolated", viewgen.Interpolation(alpha=options.alpha))):
        update = progress.add_task(f"{name} generated")
        viewgen.generate_views(
            images,
            options.out / name,
            generator,
            embeddings=embeddings,
            interpolate=interpolation,
            shard=shard,
            on_progress=update,
        )
        barrier()
        if worker.is_main:
            viewgen.merge_journals(options.out / name)
        barrier()
    return options.out / "views", options.out / "interpolated"


def _embed(
    images: Path, backbone: Path, options: QuickstartOptions, worker: DistContext, progress: Progress
) -> viewgen.Embeddings:
    folder = options.out / "embeddings"
    if worker.is_main:
        network, expected = sslzoo.resolve_backbone(backbone)
        encoder = viewgen.ImageEncoder(network, name="vanilla", device=str(worker.device), **expected)
        viewgen.embed_images(images, folder, encoder, on_progress=progress.add_task("embeddings"))
    barrier()
    return viewgen.Embeddings.load(folder)


def _evaluate(
    variants: dict[str, list[Path]],
    images: Path,
    test: Path,
    options: QuickstartOptions,
    worker: DistContext,
    progress: Progress,
) -> None:
    """Evaluate every encoder, and an untrained one, by kNN and a linear probe."""
    path = options.out / "results.jsonl"
    measured = {(result.backbone, result.seed, result.task) for result in ssl_eval.read_results(path)}
    update = progress.add_task("evaluation")
    encoders = [
        (variant, seed, sslzoo.load_backbone(b)) for variant, found in variants.items() for seed, b in enumerate(found)
    ]
    torch.manual_seed(0)
    encoders.append(("untrained", 0, sslzoo.create_backbone(**RECIPES[RECIPE_OF["vanilla"]]().architecture)))
    for done, (variant, seed, backbone) in enumerate(encoders):
        backbone_hash = sslzoo.backbone_hash(backbone)
        if not {(backbone_hash, seed, "knn"), (backbone_hash, seed, "linear")} <= measured:
            train_features, test_features = (
                ssl_eval.extract_features(
                    backbone,
                    LabeledImages(root, size=32, mean=CIFAR_MEAN, std=CIFAR_STD, device=str(worker.device)),
                    device=worker.device,
                )
                for root in (images, test)
            )
            for result in ssl_eval.evaluate_frozen(
                train_features,
                test_features,
                backbone=backbone_hash,
                data=ssl_eval.data_name(test),
                recipe=variant,
                seed=seed,
            ):
                ssl_eval.append_result(path, result)
        update(done + 1, len(encoders))


def _report(options: QuickstartOptions, progress: Progress, seconds: float) -> None:
    """Print the table and the paths of all outputs."""
    results = ssl_eval.read_results(options.out / "results.jsonl")
    if results:
        table = ssl_eval.tabulate(results)
        progress.console.print(dataclasses.replace(table, title="top-1 accuracy in percent on held-out images"))
        atomic_write(options.out / "table.md", table.markdown())
    for name, what in WRITTEN.items():
        if (options.out / name).exists():
            progress.console.print(f"  {options.out / name}  {what}")
    progress.console.print(f"{seconds:.0f} seconds")


WRITTEN = {
    "pairs.png": "real, generated and interpolated images side by side",
    "curves.png": "loss curves",
    "table.md": "the table",
    "results.jsonl": "one line a result",
    "vanilla": "the first encoder: backbone/, log.jsonl, TensorBoard events",
    "generator": "the diffusion model, as a diffusers folder",
    "views": "one generative view an image, manifest.parquet",
    "interpolated": "one interpolated view an image, manifest.parquet",
    "generative": "the second encoder",
}
