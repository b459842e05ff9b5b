"""One training step: everything that happens to a batch of views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sslzoo import schedules
from sslzoo.methods import Method
from sslzoo.optim import apply_schedule, clip_grad_per_param
from sslzoo.training.config import TrainConfig
from sslzoo.training.state import TrainState

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """The input of a step, on the device of the method.

    Attributes:
        views: Float[B,3,H,W] each; the first two are global.
        labels: class indices Int64[B] for the online probe; -1: no label.
        weights: per-image weights Float[B] of the loss.
        inputs: further keyword arguments of the method: tensors, or dataclasses of tensors, with B rows.
    """

    views: Sequence[Tensor]
    labels: Tensor | None = None
    weights: Tensor | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.views[0])


def train_step(
    model: torch.nn.Module,
    batch: ViewBatch,
    state: TrainState,
    config: TrainConfig,
    *,
    steps_per_epoch: int,
    flop_counter: AbstractContextManager[Any] | None = None,
) -> dict[str, Tensor]:
    """Compute the loss and its gradient, and update the method; `state.step` is incremented.

    Args:
        model: state.method, or the same in DistributedDataParallel.
        batch: views of this process's images.
        state: state of the training.
        config: the configuration.
        steps_per_epoch: for the schedules.
        flop_counter: context of the forward and backward passes.

    Returns:
        The loss and the other metrics of the method, detached, averaged over the accumulation steps.
    """
    method, weighter, accumulation_steps = state.method, state.pair_weighter, config.accumulation_steps
    progress = _apply_schedules(state, config, steps_per_epoch)
    state.optimizer.zero_grad(set_to_none=True)

    outputs = []
    with flop_counter or nullcontext():
        for part, is_last in _split(batch, accumulation_steps):
            views = [view.contiguous(memory_format=torch.channels_last) for view in part.views]
            weights = part.weights if weighter is None else weighter.weight_fn(views)
            dtype = AUTOCAST.get(config.precision)
            with nullcontext() if is_last else _no_sync(model):
                with torch.autocast(state.context.device.type, dtype, enabled=dtype is not None):
                    output = model(views, weights, **part.inputs)
                state.scaler.scale(output["loss"] / accumulation_steps).backward()
            state.monitor.update(len(part), part.labels)
            outputs.append({name: value.detach() for name, value in output.items()})

    if _update(state, config):
        method.after_step(progress)
    else:
        _skip_step(method, progress)
    state.monitor.step()
    state.step += 1
    return {name: torch.stack([output[name] for output in outputs]).mean(0) for name in outputs[0]}


def _apply_schedules(state: TrainState, config: TrainConfig, steps_per_epoch: int) -> float:
    """Set learning rate and weight decay; return the fraction of the training that is done after the step."""
    step, total = state.step, config.epochs * steps_per_epoch
    lr = schedules.warmup_cosine(
        step,
        total,
        peak=config.lr,
        final=config.final_lr,
        warmup_steps=int(config.warmup_epochs * steps_per_epoch),
        warmup_includes_peak=config.warmup_includes_peak,
    )
    weight_decay = None
    if config.final_weight_decay is not None:
        weight_decay = schedules.cosine(step / total, config.weight_decay, config.final_weight_decay)
    apply_schedule(state.optimizer, lr, weight_decay)
    return (step + 1) / total


def _split(batch: ViewBatch, parts: int) -> Iterator[tuple[ViewBatch, bool]]:
    """Yield equal parts of a batch, and whether each is the last."""
    size, rest = divmod(len(batch), parts)
    if rest or not size:
        raise ValueError(f"expected a batch that divides into {parts} accumulation steps, got {len(batch)} images")
    for part in range(parts):
        yield _rows(batch, slice(part * size, (part + 1) * size)), part == parts - 1


def _rows(value: Any, rows: slice) -> Any:
    """Select rows of a tensor, or of all tensors in a list, mapping or dataclass."""
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, Mapping):
        return {name: _rows(each, rows) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rows(each, rows) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{each.name: _rows(getattr(value, each.name), rows) for each in fields(value)})
    return value


def _no_sync(model: torch.nn.Module) -> AbstractContextManager[Any]:
    """Average gradients over processes only once a step, in the last accumulation step."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _update(state: TrainState, config: TrainConfig) -> bool:
    """Clip gradients and update; return False if fp16 gradients overflowed, so that the scaler skipped the update."""
    method, scaler, optimizer = state.method, state.scaler, state.optimizer
    scaler.unscale_(optimizer)
    if config.per_param_clip_norm is not None:
        clip_grad_per_param(method, config.per_param_clip_norm)
    if config.clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(method.parameters(), config.clip_grad_norm)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= scale


@torch.no_grad()
def _skip_step(method: Method, progress: float) -> None:
    """Advance the schedules of a step that the scaler skipped.

    Momentum encoders, centers and queues keep their state from before the overflow.
    """
    before = {name: tensor.clone() for name, tensor in _tensors(method).items()}
    extra = method.get_extra_state()
    method.after_step(progress)
    for name, tensor in _tensors(method).items():
        tensor.copy_(before[name])
    method.set_extra_state({**extra, "progress": progress})


def _tensors(method: Method) -> dict[str, Tensor]:
    return dict(method.named_parameters()) | dict(method.named_buffers())
