"""The training of one encoder: the loop around `step.training_step`, which is all that happens to a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining.backbone import fit_backbone
from genviews.pretraining.data import Data, check_values, open_fitting
from genviews.pretraining.execution import Execution
from genviews.pretraining.guard import Guard
from genviews.pretraining.keeper import Keeper
from genviews.pretraining.online_knn import open_knn
from genviews.pretraining.pair_weighting import Scoring, open_weigher
from genviews.pretraining.report import OnStep, Report, opening
from genviews.pretraining.state import Training
from genviews.pretraining.step import training_step
from genviews.pretraining.watch import Watch
from genviews.recipes import METHODS, Recipe
from genviews_core.files import write_json
from pairdata import FolderLoader
from sslzoo import DistContext, StopSignal
from sslzoo.methods import Method


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
    """Train until the last epoch, from wherever OUT/resume.pt stands, and export OUT/backbone.

    The batch size is reduced if the images do not fill one batch. A finished run is not trained again. SIGTERM, SIGUSR1
    and Ctrl-C stop training after the current step and save a checkpoint.

    Returns:
        The backbone folder.

    Raises:
        ValueError: OUT holds another recipe's run, or the data cannot be used.
        FloatingPointError: the loss or a parameter became NaN or infinite; the last good checkpoint stays.
        Stopped: a signal ended it; on all processes, after the same step.
    """
    execution = execution or Execution()
    check_values(recipe, data)
    log = on_message or _discard
    execution.require_parts(recipe, worker.world_size)
    recipe = fit_backbone(recipe, log if worker.is_main else _discard)
    recipe, loader = open_fitting(recipe, data, worker, parts=execution.accumulate, log=log)
    training = open_training(recipe, data, loader, out, worker, execution, scoring or Scoring())
    total, knn = recipe.epochs * len(loader), open_knn(recipe, data, execution, worker, len(loader))
    if worker.is_main:
        log(opening(recipe, training, loader, worker, total))
    if training.step < total:
        model = sslzoo.wrap_ddp(training.method) if worker.world_size > 1 else training.method
        report = Report(recipe, execution, training, out, worker, total, on_step)
        with StopSignal() as stop, report:
            keeper = Keeper(
                training,
                Guard(worker, stop),
                report,
                worker,
                total=total,
                log_every=log_every,
                checkpoint_seconds=checkpoint_seconds,
                measure=lambda step: knn.measurement(step, training.method, stop) if knn else None,
            )
            while training.step < total:
                epoch, start = divmod(training.step, len(loader))
                for batch in stop.block_signals(loader.epoch(epoch, start=start)):
                    metrics = training_step(
                        model,
                        batch,
                        recipe,
                        training,
                        steps_per_epoch=len(loader),
                        generator=step_generator(recipe.seed, training.step, worker.rank),
                        parts=execution.accumulate,
                        counting=report.speed.counting(),
                    )
                    keeper.after_step(metrics)
        if worker.is_main:
            _note_gaps(loader, out)
    if worker.is_main:
        _export(recipe, training.method, data, out)
    return out / "backbone"


def open_training(
    recipe: Recipe,
    data: Data,
    loader: FolderLoader,
    out: Path,
    worker: DistContext,
    execution: Execution,
    scoring: Scoring,
) -> Training:
    """Everything that a step changes, new or from the checkpoint.

    Raises:
        ValueError: the checkpoint is another recipe's, or something that is asked for cannot be had.
    """
    method = build_method(recipe, worker)
    options = {**recipe.optimizer_options, **execution.optimizer_options(recipe)}
    optimizer = sslzoo.build_optimizer(
        recipe.optimizer, method, lr=recipe.lr, weight_decay=recipe.weight_decay, **options
    )
    weigher = open_weigher(recipe, scoring, method, worker)
    execution.require_two(recipe, method)
    training = Training(
        path=out / "resume.pt",
        method=method,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(worker.device.type, enabled=recipe.precision == "fp16"),
        weigher=weigher,
        watch=Watch(method, worker, classes=len(loader.index.classes) if execution.probe else 0),
        record=recipe.record() | data.record(loader) | ({"scoring": weigher.record} if weigher else {}),
    )
    training.resume(last_step=recipe.epochs * len(loader))
    execution.apply(method)
    return training


def build_method(recipe: Recipe, worker: DistContext) -> Method:
    """The method on this process's device, the same weights on every process."""
    torch.manual_seed(recipe.seed)
    method = METHODS[recipe.method](sslzoo.create_backbone(**recipe.architecture), **recipe.method_options)
    method = method.to(worker.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return sslzoo.convert_sync_batchnorm(method) if worker.world_size > 1 else method


def _discard(message: str) -> None:
    """Ignore a message; the default of `on_message`."""


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The source of every random number of one step; torch's own is set from it, for drop path and dropout."""
    digest = hashlib.blake2b(f"train/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def _note_gaps(loader: FolderLoader, out: Path) -> None:
    """OUT/gaps.json: what was asked for and could not be read; others took the place of unreadable images."""
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
