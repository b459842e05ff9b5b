"""The whole of Gen-SIS on two cores: an encoder, a diffusion model of its embeddings, new views, a second encoder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import torch

import ssl_eval
import sslzoo
import viewgen
from genviews.pretraining.data import Data
from genviews.pretraining.job import train_encoder
from genviews.quickstart import plots as pictures
from genviews.quickstart.options import Loop
from genviews.recipes import CIFAR_MEAN, CIFAR_STD, RECIPES
from genviews_core.files import atomic_write
from genviews_core.progress import Progress
from pairdata import LabeledImages, write_scenes
from sslzoo import DistContext, barrier
from viewgen import eldm

RECIPE_OF = {"vanilla": "small-dino", "generative": "small-gen-dino"}
SCENES_TRAIN, SCENES_TEST = 3000, 1000


def run_loop(loop: Loop, worker: DistContext) -> None:
    """Every stage in turn; one that is done is not done again."""
    started = time.monotonic()
    with Progress(shown=worker.is_main) as progress:
        images, test = _images(loop, worker, progress)
        plain = Data(images=images)
        vanilla = [_encoder("vanilla", seed, plain, loop, worker, progress) for seed in range(loop.seeds)]
        views, mixed = _paint(images, vanilla[0], loop, worker, progress)
        richer = Data(images=images, views=views, interpolated=mixed)
        generative = [_encoder("generative", seed, richer, loop, worker, progress) for seed in range(loop.seeds)]
        if worker.is_main:
            if test:
                _evaluate({"vanilla": vanilla, "generative": generative}, images, test, loop, worker, progress)
            pictures.draw_pairs(images, views, mixed, loop.out / "pairs.png")
            pictures.draw_curves(loop.out, loop.out / "curves.png")
            _report(loop, progress, time.monotonic() - started)
    barrier()


def _images(loop: Loop, worker: DistContext, progress: Progress) -> tuple[Path, Path | None]:
    """The user's folders, or the scenes."""
    if loop.data is not None:
        return loop.data, loop.test
    train, test = loop.out / "scenes" / "train", loop.out / "scenes" / "test"
    if worker.is_main:
        update = progress.add_task("scenes")
        write_scenes(train, count=SCENES_TRAIN, seed=0)
        update(SCENES_TRAIN, SCENES_TRAIN + SCENES_TEST)
        write_scenes(test, count=SCENES_TEST, seed=1)
        update(SCENES_TRAIN + SCENES_TEST, SCENES_TRAIN + SCENES_TEST)
    barrier()
    return train / "images", test / "images"


def _encoder(arm: str, seed: int, data: Data, loop: Loop, worker: DistContext, progress: Progress) -> Path:
    """One encoder of one row of the table."""
    recipe = dataclasses.replace(RECIPES[RECIPE_OF[arm]](), epochs=loop.epochs, seed=seed)
    if loop.batch_size is not None:
        recipe = dataclasses.replace(recipe, batch_size=loop.batch_size)
    update = progress.add_task(f"{arm} encoder" + (f", seed {seed}" if loop.seeds > 1 else ""))
    out = loop.out / arm / f"seed-{seed}"
    backbone = train_encoder(
        recipe,
        data,
        out,
        worker,
        on_step=update,
        on_message=progress.message,
        checkpoint_seconds=loop.checkpoint_seconds,
    )
    barrier()
    return backbone


def _paint(images: Path, backbone: Path, loop: Loop, worker: DistContext, progress: Progress) -> tuple[Path, Path]:
    """Embeddings, the diffusion model trained on them, then one generative and one interpolated view an image."""
    embeddings = _embed(images, backbone, loop, worker, progress)
    config = eldm.preset(loop.generator)
    if loop.generator_steps is not None:
        config = dataclasses.replace(config, steps=loop.generator_steps)
    folder = loop.out / "generator"
    update = sslzoo.log_steps(folder, progress.add_task("diffusion model")) if worker.is_main else None
    device, seconds = str(worker.device), loop.checkpoint_seconds
    eldm.train_eldm(images, embeddings, folder, config, on_step=update, device=device, checkpoint_seconds=seconds)
    barrier()

    generator = eldm.ELDMGenerator(folder, steps=loop.sampling_steps, device=device, dtype=torch.bfloat16)
    shard = (worker.rank, worker.world_size)
    for name, interpolation in (("views", None), ("interpolated", viewgen.Interpolation(alpha=loop.alpha))):
        update = progress.add_task(f"{name} painted")
        viewgen.generate_views(
            images,
            loop.out / name,
            generator,
            embeddings=embeddings,
            interpolate=interpolation,
            shard=shard,
            on_progress=update,
        )
        barrier()
        if worker.is_main:
            viewgen.merge_journals(loop.out / name)
        barrier()
    return loop.out / "views", loop.out / "interpolated"


def _embed(images: Path, backbone: Path, loop: Loop, worker: DistContext, progress: Progress) -> viewgen.Embeddings:
    folder = loop.out / "embeddings"
    if worker.is_main:
        network, expected = sslzoo.resolve_backbone(backbone)
        encoder = viewgen.ImageEncoder(network, name="vanilla", device=str(worker.device), **expected)
        viewgen.embed_images(images, folder, encoder, on_progress=progress.add_task("embeddings"))
    barrier()
    return viewgen.Embeddings.load(folder)


def _evaluate(
    arms: dict[str, list[Path]], images: Path, test: Path, loop: Loop, worker: DistContext, progress: Progress
) -> None:
    """kNN and linear probe of every encoder, and of one that has learned nothing."""
    path = loop.out / "results.jsonl"
    measured = {(result.backbone, result.seed, result.task) for result in ssl_eval.read_results(path)}
    update = progress.add_task("evaluation")
    encoders = [(arm, seed, sslzoo.load_backbone(b)) for arm, found in arms.items() for seed, b in enumerate(found)]
    torch.manual_seed(0)
    encoders.append(("untrained", 0, sslzoo.create_backbone(**RECIPES[RECIPE_OF["vanilla"]]().architecture)))
    for done, (arm, seed, backbone) in enumerate(encoders):
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
                recipe=arm,
                seed=seed,
            ):
                ssl_eval.append_result(path, result)
        update(done + 1, len(encoders))


def _report(loop: Loop, progress: Progress, seconds: float) -> None:
    """The table and where everything lies."""
    results = ssl_eval.read_results(loop.out / "results.jsonl")
    if results:
        table = ssl_eval.tabulate(results)
        progress.console.print(dataclasses.replace(table, title="top-1 accuracy in percent on held-out images"))
        atomic_write(loop.out / "table.md", table.markdown())
    for name, what in WRITTEN.items():
        if (loop.out / name).exists():
            progress.console.print(f"  {loop.out / name}  {what}")
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
