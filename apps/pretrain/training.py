"""The training of one encoder: `training_step` is all that happens to a batch, `train_encoder` the loop around it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

import sslzoo
from data import Data, open_loader
from pairdata import FolderLoader, PairBatch
from recipes import METHODS, Recipe
from sslzoo import schedules
from sslzoo.methods import Method
from views import make_interpolated, make_views
from weighing import PairWeigher, Scoring, open_weigher

OnStep = Callable[[int, int, dict[str, float]], None]


def build_method(recipe: Recipe, worker: sslzoo.Worker) -> Method:
    """The method on this process's device, the same weights on every process."""
    torch.manual_seed(recipe.seed)
    options = dict(recipe.method_options)
    if recipe.method == "moco-v2" and recipe.quality == "self":
        options["shuffle"] = False  # batch norm is synchronised, and the keys' maps must be those of their queries
    method = METHODS[recipe.method](sslzoo.create_backbone(**recipe.architecture), **options)
    method = method.to(worker.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return sslzoo.synchronise_batch_norm(method) if worker.world_size > 1 else method


def training_step(
    model: torch.nn.Module,
    batch: PairBatch,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    steps_per_epoch: int,
    generator: torch.Generator,
    weigher: PairWeigher | None = None,
) -> dict[str, torch.Tensor]:
    """Views, loss, gradient, update."""
    total = recipe.epochs * steps_per_epoch
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    lr = schedules.warmup_cosine(step, total, peak=recipe.lr, final=recipe.final_lr, warmup_steps=warmup)
    decay = None
    if recipe.final_weight_decay is not None:
        decay = schedules.cosine(step / total, recipe.weight_decay, recipe.final_weight_decay)
    sslzoo.apply_schedule(optimizer, lr, decay)

    views = [view.contiguous(memory_format=torch.channels_last) for view in make_views(batch, recipe, generator)]
    extra = {"interpolated": make_interpolated(batch, recipe, generator)} if recipe.method == "gen-dino" else {}
    weights = weigher.of(views) if weigher else None
    with torch.autocast(batch.real.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        out = model(views, weights, **extra)

    optimizer.zero_grad(set_to_none=True)
    out["loss"].backward()
    if recipe.clip_norm is not None:
        sslzoo.clip_gradients(_bare(model), recipe.clip_norm)
    optimizer.step()
    _bare(model).after_step((step + 1) / total)
    return {name: value.detach() for name, value in out.items()}


def train_encoder(
    recipe: Recipe,
    data: Data,
    out: Path,
    worker: sslzoo.Worker,
    *,
    scoring: Scoring | None = None,
    on_step: OnStep | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 10,
) -> Path:
    """Train until the last epoch, from wherever OUT/resume.pt stands, and export OUT/backbone.

    A run that has ended is checked, not trained again.

    Returns:
        The backbone folder.

    Raises:
        ValueError: OUT holds another recipe's run, or the data cannot be used.
        FloatingPointError: the loss became NaN.
    """
    loader = open_loader(recipe, data, worker)
    method = build_method(recipe, worker)
    optimizer = sslzoo.build_optimizer(recipe.optimizer, method, lr=recipe.lr, weight_decay=recipe.weight_decay)
    weigher = open_weigher(recipe, scoring or Scoring(), method, worker)
    record = recipe.record() | data.record(loader) | ({"scoring": weigher.record} if weigher else {})
    resumed = sslzoo.load_resume(out / "resume.pt", method, optimizer, record)
    if weigher and resumed:
        weigher.scorer.load_state_dict(resumed.extra["scorer"])
    step, total = resumed.step if resumed else 0, recipe.epochs * len(loader)
    model = sslzoo.distribute(method) if worker.world_size > 1 else method
    log = sslzoo.RunLog(out, resume_step=step) if worker.leads else None
    saved = time.monotonic()

    while step < total:
        epoch, start = divmod(step, len(loader))
        for batch in loader.epoch(epoch, start=start):
            generator = step_generator(recipe.seed, step, worker.rank)
            place = {"step": step, "steps_per_epoch": len(loader), "generator": generator}
            metrics = training_step(model, batch, recipe, optimizer, weigher=weigher, **place)
            step += 1
            if step % log_every == 0 or step == total:
                of_weights, histograms = weigher.summary() if weigher else ({}, {})
                if log:
                    _stop_at_nan(metrics, step, out)
                    scalars = {name: float(value) for name, value in metrics.items()} | of_weights
                    log.write(step, histograms, **scalars, lr=optimizer.param_groups[0]["lr"])
                    if on_step:
                        on_step(step, total, scalars)
            if worker.leads and (time.monotonic() - saved > checkpoint_seconds or step == total):
                _stop_at_nan(metrics, step, out)
                extra = {"scorer": weigher.scorer.state_dict()} if weigher else None
                sslzoo.save_resume(
                    out / "resume.pt", step=step, method=method, optimizer=optimizer, recipe=record, extra=extra
                )
                saved = time.monotonic()

    if log:
        log.close()
        _note_gaps(loader, out)
        _export(recipe, method, data, out)
    return out / "backbone"


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The source of every random number of one step; torch's own is set from it, for drop path and dropout."""
    digest = hashlib.blake2b(f"train/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def _bare(model: torch.nn.Module) -> Method:
    return model.module if isinstance(model, DistributedDataParallel) else model  # pyright: ignore[reportReturnType]


def _stop_at_nan(metrics: dict[str, torch.Tensor], step: int, out: Path) -> None:
    loss = float(metrics["loss"])
    if not math.isfinite(loss):
        good = out / "resume.pt"
        state = f"{good} holds the last good state" if good.exists() else "nothing was saved yet"
        raise FloatingPointError(
            f"the loss is {loss} at step {step}; {state}: "
            "try a lower --lr, a longer --warmup-epochs or --precision float32 in a new --out folder"
        )


def _note_gaps(loader: FolderLoader, out: Path) -> None:
    """OUT/gaps.json: what was asked for and could not be read; others took the place of unreadable images."""
    if loader.failures or loader.missing_views:
        gaps = {"missing_views": loader.missing_views, "unreadable": loader.failures}
        (out / "gaps.json").write_text(json.dumps(gaps, indent=2) + "\n")


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
