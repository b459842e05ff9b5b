"""All that happens to a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import sslzoo
from genviews.pretraining.state import Training
from genviews.pretraining.views import make_interpolated, make_views
from genviews.recipes import Recipe
from pairdata import PairBatch
from sslzoo import schedules
from sslzoo.methods import Interpolated, Method

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_step(
    model: torch.nn.Module,
    batch: PairBatch,
    recipe: Recipe,
    training: Training,
    *,
    steps_per_epoch: int,
    generator: torch.Generator,
    parts: int = 1,
    counting: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:
    """Views, loss, gradient, update.

    Args:
        model: training.method, or the same in DistributedDataParallel.
        batch: this process's images.
        recipe: what to do with them.
        training: where the training stands; all of it but `step` moves on.
        steps_per_epoch: of the schedules.
        generator: of the views.
        parts: the views are made for the whole batch and go through the networks in so many equal parts.
        counting: surrounds forward and backward passes.

    Returns:
        The loss and what else the method tells, detached, the mean over the parts.
    """
    method, weigher, device = training.method, training.weigher, batch.real.device
    share = _set_rates(training, recipe, steps_per_epoch)
    views = [view.contiguous(memory_format=torch.channels_last) for view in make_views(batch, recipe, generator)]
    mixed = make_interpolated(batch, recipe, generator) if recipe.method == "gen-dino" else None
    training.optimizer.zero_grad(set_to_none=True)

    told = []
    with counting or nullcontext():
        for own, extra, labels, last in _split(views, mixed, batch.label, parts):
            with nullcontext() if last else _unsynchronised(model):
                with torch.autocast(device.type, HALF.get(recipe.precision), enabled=recipe.precision in HALF):
                    out = model(own, weigher.of(own) if weigher else None, **extra)
                training.scaler.scale(out["loss"] / parts).backward()
            training.watch.see(labels)
            told.append({name: value.detach() for name, value in out.items()})

    if _update(training, recipe):
        method.after_step(share)
    else:
        _pass_over(method, share)
    training.watch.learn()
    return {name: torch.stack([each[name] for each in told]).mean(0) for name in told[0]}


def _set_rates(training: Training, recipe: Recipe, steps_per_epoch: int) -> float:
    """Learning rate and weight decay of the coming step; the share of the training that is done after it."""
    step, total = training.step, recipe.epochs * steps_per_epoch
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    lr = schedules.warmup_cosine(
        step,
        total,
        peak=recipe.lr,
        final=recipe.lowest_lr,
        warmup_steps=warmup,
        warmup_includes_peak=recipe.warmup_holds_peak,
    )
    decay = None
    if recipe.final_weight_decay is not None:
        decay = schedules.cosine(step / total, recipe.weight_decay, recipe.final_weight_decay)
    sslzoo.apply_schedule(training.optimizer, lr, decay)
    return (step + 1) / total


def _split(
    views: Sequence[Float[Tensor, "b 3 _ _"]], mixed: Interpolated | None, labels: Int64[Tensor, " b"], parts: int
) -> Iterator[tuple[list[Tensor], dict[str, Interpolated], Tensor, bool]]:
    """Views, what a method takes beside them, and labels of each part; whether it is the last."""
    size = len(labels) // parts
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        extra = {"interpolated": _rows(mixed, rows)} if mixed else {}
        yield [view[rows] for view in views], extra, labels[rows], part == parts - 1


def _rows(mixed: Interpolated, rows: slice) -> Interpolated:
    return Interpolated(**{field.name: getattr(mixed, field.name)[rows] for field in fields(mixed)})


def _unsynchronised(model: torch.nn.Module) -> AbstractContextManager[Any]:
    """Gradients are averaged over the processes once a step, with the last part."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _update(training: Training, recipe: Recipe) -> bool:
    """Clip and step; False where the gradient overflowed in fp16 and the scaler left the parameters as they were."""
    method, scaler, optimizer = training.method, training.scaler, training.optimizer
    scaler.unscale_(optimizer)
    if recipe.clip_norm is not None:
        sslzoo.clip_grad_per_param(method, recipe.clip_norm)
    if recipe.clip_total_norm is not None:
        torch.nn.utils.clip_grad_norm_(method.parameters(), recipe.clip_total_norm)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= scale


@torch.no_grad()
def _pass_over(method: Method, share: float) -> None:
    """A step that the scaler skipped counts for the schedules and for nothing else.

    What the forward pass before an overflow has seen is kept out of momentum encoders, centers and queues.
    """
    before = {name: tensor.clone() for name, tensor in _tensors(method).items()}
    extra = method.get_extra_state()
    method.after_step(share)
    for name, tensor in _tensors(method).items():
        tensor.copy_(before[name])
    method.set_extra_state({**extra, "progress": share})


def _tensors(method: Method) -> dict[str, Tensor]:
    return dict(method.named_parameters()) | dict(method.named_buffers())
