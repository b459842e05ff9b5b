"""Pretrain one encoder: compose recipe, data, views and pair weights for `sslzoo.fit`, and export the backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining.backbone import fit_backbone
from genviews.pretraining.data import Data, check_values, open_fitting
from genviews.pretraining.execution import Execution
from genviews.pretraining.online_knn import open_knn
from genviews.pretraining.pair_weighting import Scoring, open_pair_weighter
from genviews.pretraining.views import make_view_batch
from genviews.recipes import METHODS, Recipe
from genviews_core.files import write_json
from pairdata import FolderLoader
from sslzoo import DistContext
from sslzoo.methods import Method
from sslzoo.training import TrainConfig

OnStep = Callable[[int, int, dict[str, float]], None]


def train_encoder(
    recipe: Recipe,
    data: Data,
    out: Path,
    worker: DistContext,
    *,
    execution: Execution | None = None,
    scoring: Scoring | None = None,
    on_step: OnStep | None = None,
    on_message: Callable[[str], None] | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 10,
) -> Path:
    """Train until the last epoch, from the checkpoint OUT/resume.pt if there is one, and export OUT/backbone.

    The batch size is reduced if the images do not fill one batch. A finished run is not trained again. SIGTERM, SIGUSR1
    and Ctrl-C stop training after the current step and save a checkpoint.

    Returns:
        The backbone folder.

    Raises:
        ValueError: OUT holds a run with another recipe, or the data cannot be used.
        FloatingPointError: the loss or a parameter became NaN or infinite; the last good checkpoint is kept.
        TrainingInterrupted: a signal ended the training, on all processes after the same step.
    """
    execution = execution or Execution()
    check_values(recipe, data)
    log = on_message if on_message and worker.is_main else _ignore
    execution.require_parts(recipe, worker.world_size)
    recipe = fit_backbone(recipe, log)
    recipe, loader = open_fitting(recipe, data, worker, parts=execution.accumulate, log=log)
    method = build_method(recipe, worker)
    execution.require_two(recipe, method)
    weighter = open_pair_weighter(recipe, scoring or Scoring(), method, worker)
    knn = open_knn(recipe, data, execution, worker)
    config = train_config(
        recipe,
        execution,
        num_classes=len(loader.index.classes),
        log_every=log_every,
        checkpoint_seconds=checkpoint_seconds,
    )
    log(
        f"{recipe.name}: {len(loader.index):,} images, {recipe.epochs} x {len(loader):,} steps of "
        f"{recipe.batch_size} images, policy {recipe.policy}"
    )
    sslzoo.fit(
        method,
        loader,  # pyright: ignore[reportArgumentType]  (it has epoch(epoch, start=step))
        config,
        out=out,
        make_views=partial(make_view_batch, recipe=recipe),
        context=worker,
        pair_weighter=weighter,
        evaluate=knn.measure if knn else None,
        fingerprint=recipe.record() | data.record(loader) | ({"scoring": weighter.record} if weighter else {}),
        on_step=on_step,
        on_message=log,
    )
    if worker.is_main:
        _note_gaps(loader, out)
        _export(recipe, method, data, out)
    return out / "backbone"


def train_config(
    recipe: Recipe, execution: Execution, *, num_classes: int = 0, log_every: int = 10, checkpoint_seconds: float = 30.0
) -> TrainConfig:
    """Return the engine's configuration of a recipe."""
    return TrainConfig(
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        optimizer_options=recipe.optimizer_options,
        lr=recipe.lr,
        final_lr=recipe.lowest_lr,
        warmup_epochs=recipe.warmup_epochs,
        warmup_includes_peak=recipe.warmup_holds_peak,
        weight_decay=recipe.weight_decay,
        final_weight_decay=recipe.final_weight_decay,
        per_param_clip_norm=recipe.clip_norm,
        clip_grad_norm=recipe.clip_total_norm,
        precision=recipe.precision,
        accumulation_steps=execution.accumulate,
        seed=recipe.seed,
        compile=execution.compile,
        fused=execution.fused,
        checkpoint_activations=execution.checkpoint_activations,
        num_classes=num_classes if execution.probe else 0,
        evaluate_every=execution.knn_every,
        log_every=log_every,
        checkpoint_seconds=checkpoint_seconds,
        peak_tflops=execution.peak_tflops,
        wandb=execution.wandb,
    )


def build_method(recipe: Recipe, worker: DistContext) -> Method:
    """Return the method of a recipe on the device of this process, with the same weights on every process."""
    torch.manual_seed(recipe.seed)
    method = METHODS[recipe.method](sslzoo.create_backbone(**recipe.architecture), **recipe.method_options)
    method = method.to(worker.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return sslzoo.convert_sync_batchnorm(method) if worker.world_size > 1 else method


def _ignore(message: str) -> None:
    """Ignore a message."""


def _note_gaps(loader: FolderLoader, out: Path) -> None:
    """Write OUT/gaps.json: missing views and unreadable images, which were replaced by others."""
    if loader.failures or loader.missing_views:
        gaps = {"missing_views": loader.missing_views, "unreadable": loader.failures}
        write_json(out / "gaps.json", gaps)


def _export(recipe: Recipe, method: Method, data: Data, out: Path) -> None:
    augment = recipe.augmentation.first
    sslzoo.save_backbone(
        out / "backbone",
        method.backbone,
        architecture=recipe.architecture,
        method=recipe.method,
        recipe={**recipe.record(), "image_size": recipe.image_size, "mean": augment.mean, "std": augment.std},
        epoch=recipe.epochs,
        data=str(data.images),
    )
