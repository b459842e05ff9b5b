"""Train a method on any iterable of batches: `fit`, and the `Trainer` that acts between its steps."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sslzoo.distributed import DistContext, barrier, init_distributed, wrap_ddp
from sslzoo.methods import Method
from sslzoo.statistics import first_nonfinite
from sslzoo.training.config import TrainConfig
from sslzoo.training.diagnostics import NonFiniteMonitor
from sslzoo.training.metrics import MetricLogger, OnStep
from sslzoo.training.signals import StopSignal, TrainingInterrupted, block_signals
from sslzoo.training.state import PairWeighter, TrainState, create_state, has_batch_norm, prepare_networks
from sslzoo.training.step import ViewBatch, train_step

SYNC_EVERY = 5
"""Steps between synchronizations of signals and non-finite losses over all processes."""
MIN_LOSS_SCALE = 1e-4
"""Minimum loss scale in fp16, below which every gradient overflows. Our choice."""

MakeViews = Callable[[Any, torch.Generator], Any]
Evaluate = Callable[[Method], Mapping[str, float]]


@runtime_checkable
class SeekableBatches(Protocol):
    """Batches that can start at any step of any epoch."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch from number `start` on."""
        ...


def fit(
    method: Method,
    batches: Iterable[Any] | SeekableBatches,
    config: TrainConfig,
    *,
    out: str | Path,
    make_views: MakeViews | None = None,
    context: DistContext | None = None,
    pair_weighter: PairWeighter | None = None,
    evaluate: Evaluate | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    on_message: Callable[[str], None] | None = None,
) -> TrainState:
    """Train a method until its last epoch, from the checkpoint OUT/resume.pt if there is one.

    The same call with more epochs continues a training, finished or not, with the schedules of the new length: the
    learning rate jumps to where they are at this step.

    SIGTERM, SIGUSR1 and Ctrl-C end the training after the current step with a checkpoint; the same call resumes it,
    bit-identically on a CPU. OUT/log.jsonl and TensorBoard events hold the metrics.

    Args:
        method: the method; moved to the device, with synchronized batch norm if there are several processes.
        batches: an iterable that yields the batches of one epoch, such as a DataLoader, or SeekableBatches. With an
            iterable, a resumed epoch skips the batches that are done, the global random generators are seeded before
            each batch, so that augmentations in this process are reproducible, and a DistributedSampler is told the
            epoch.
        config: the configuration.
        out: folder of checkpoint and logs.
        make_views: maps a batch and the generator of the step to a ViewBatch, to views, or to (views, labels); default:
            `as_view_batch`.
        context: rank and device; default: a single process, on the GPU if available.
        pair_weighter: weights pairs.
        evaluate: called with the method every `config.evaluate_every` epochs on all processes, for example to measure
            kNN; returns metrics.
        fingerprint: settings that a resumed run must share; default: those of the configuration.
        on_step: called with (step, total, metrics) on the main process, for a progress bar.
        on_message: called with messages on the main process; default: logged.

    Returns:
        The final state.

    Raises:
        ValueError: OUT holds a run with another configuration, or an option is not supported.
        FloatingPointError: the loss or a parameter became NaN or infinite; the last good checkpoint is kept.
        TrainingInterrupted: a signal ended the training, on all processes after the same step.
    """
    context, out = context or init_distributed(), Path(out)
    logger = logging.getLogger("sslzoo")
    steps = config.steps_per_epoch or len(batches)  # pyright: ignore[reportArgumentType]
    total = config.epochs * steps
    path = out / "resume.pt"
    state = create_state(
        method, config, context=context, pair_weighter=pair_weighter, path=path, fingerprint=fingerprint
    )
    state.resume(last_step=total)
    prepare_networks(state.method, config)
    if context.is_main:
        (on_message or logger.info)(_opening(state, config, total))
    if state.step >= total:
        return state
    model = wrap_ddp(state.method) if context.world_size > 1 else state.method
    warn = on_message or logger.warning
    metric_logger = MetricLogger(state, config, out, total=total, on_step=on_step, on_message=warn)
    with StopSignal() as stop, metric_logger:
        trainer = Trainer(state, config, metric_logger, stop, total=total, steps_per_epoch=steps, evaluate=evaluate)
        while state.step < total:
            epoch, start = divmod(state.step, steps)
            epoch_batches = _epoch_batches(batches, epoch, start, steps, config.seed, context.rank)
            for batch in block_signals(epoch_batches):
                generator = step_generator(config.seed, state.step, context.rank)
                views = make_views(batch, generator) if make_views else batch
                views = as_view_batch(views, context.device)
                counter = metric_logger.throughput.flop_counter()
                metrics = train_step(model, views, state, config, steps_per_epoch=steps, flop_counter=counter)
                metric_logger.throughput.update(len(views) * context.world_size)
                trainer.after_step(metrics)
    return state


class Trainer:
    """Acts between the steps of a training: checks, logs, saves checkpoints, and ends it.

    Args:
        state: state of the training.
        config: the configuration.
        logger: logs metrics.
        stop: the signals received by this process.
        total: number of steps of the training.
        steps_per_epoch: steps per epoch.
        evaluate: see `fit`.
    """

    def __init__(
        self,
        state: TrainState,
        config: TrainConfig,
        logger: MetricLogger,
        stop: StopSignal,
        *,
        total: int,
        steps_per_epoch: int,
        evaluate: Evaluate | None = None,
    ) -> None:
        self._state, self._config, self._logger, self._stop = state, config, logger, stop
        self._total, self._evaluate, self._evaluate_every = total, evaluate, config.evaluate_every * steps_per_epoch
        self._nonfinite = NonFiniteMonitor(state.context)
        self._first, self._saved_at = state.step + 1, time.monotonic()

    def after_step(self, metrics: dict[str, Tensor]) -> None:
        """Log and save the step just done if due; call it on all processes.

        Raises:
            FloatingPointError: the loss or a parameter is not finite; the last good checkpoint is kept.
            TrainingInterrupted: a signal was received, and the checkpoint is saved.
        """
        step, is_last = self._state.step, self._state.step == self._total
        evaluate = self._evaluation(step)
        logs = step == 1 or is_last or evaluate is not None or step % self._config.log_every == 0
        self._nonfinite.update(metrics["loss"], step)
        signal = self._synchronize(now=logs)
        if logs:
            self._logger.log(metrics, evaluate)
        elif step == self._first:
            self._logger.show(metrics)
        if is_last or signal or time.monotonic() - self._saved_at > self._config.checkpoint_seconds:
            self._save()
        if signal:
            barrier()
            raise TrainingInterrupted(signal, step)

    def _evaluation(self, step: int) -> Callable[[], Mapping[str, float]] | None:
        """Return the evaluation that is due after a step, if any."""
        evaluate, method = self._evaluate, self._state.method
        if evaluate is None or not (step == self._total or step % self._evaluate_every == 0):
            return None
        return lambda: evaluate(method)

    def _synchronize(self, *, now: bool) -> int:
        """Return the signal that ends the training after this step, the same on all processes; 0 to continue.

        Args:
            now: do not wait for the next synchronization, and check parameters as well.
        """
        state = self._state
        alone = state.context.world_size == 1
        if not (now or state.step % SYNC_EVERY == 0 or (alone and self._stop.number)):
            return 0
        first, signal = self._nonfinite.check(self._stop.number)
        if math.isinf(first) and (now or signal) and not state.is_finite:
            first = state.step
        if math.isfinite(first):
            raise FloatingPointError(_nonfinite_message(state, int(first)))
        if state.scaler.is_enabled() and state.scaler.get_scale() < MIN_LOSS_SCALE:
            raise FloatingPointError(f"every gradient overflows in fp16 at step {state.step}; {_remedy(state)}")
        return signal

    def _save(self) -> None:
        """Save the checkpoint on the main process, unless it would hold non-finite values."""
        state = self._state
        if state.context.is_main:
            if self._nonfinite.is_finite and state.is_finite:
                state.save()
            else:
                self._nonfinite.mark(state.step)
        self._saved_at = time.monotonic()


def as_view_batch(batch: Any, device: torch.device) -> ViewBatch:
    """Convert a batch to a ViewBatch on a device.

    Args:
        batch: a ViewBatch, a sequence of views, or a tuple (views, labels, ...) as lightly and torchvision yield.
        device: device of the method.

    Raises:
        ValueError: the batch is none of these.
    """
    if not isinstance(batch, ViewBatch):
        is_pair = isinstance(batch, list | tuple) and bool(batch) and isinstance(batch[0], list | tuple)
        views, labels = (batch[0], batch[1] if len(batch) > 1 else None) if is_pair else (batch, None)
        if not isinstance(views, list | tuple) or not all(isinstance(view, Tensor) for view in views):
            raise ValueError(
                f"expected a batch of views, or (views, labels), got {type(batch).__name__}; give make_views"
            )
        batch = ViewBatch(views=views, labels=labels if isinstance(labels, Tensor) else None)
    return _to_device(batch, device)


def _to_device(batch: ViewBatch, device: torch.device) -> ViewBatch:
    """Move views, labels and weights; make_views is responsible for further inputs."""

    def move(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    views = [view.to(device, non_blocking=True) for view in batch.views]
    return ViewBatch(views=views, labels=move(batch.labels), weights=move(batch.weights), inputs=batch.inputs)


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Return the generator of one step; torch's global one is seeded as well, for drop path and dropout."""
    number = _seed_of("train", seed, step, rank)
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def _seed_of(*key: str | int) -> int:
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _epoch_batches(batches: Any, epoch: int, start: int, steps: int, seed: int, rank: int) -> Iterator[Any]:
    """Yield the batches of an epoch from `start` on, with reproducible global random generators."""
    if isinstance(batches, SeekableBatches):
        yield from batches.epoch(epoch, start=start)
        return
    for sampler in (getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)  # pyright: ignore[reportOptionalMemberAccess]
    _seed_global_generators(_seed_of("epoch", seed, epoch))
    iterator = iter(batches)
    for position in range(steps):
        _seed_global_generators(_seed_of("batch", seed, epoch, position, rank))
        batch = list(itertools.islice(iterator, 1))
        if not batch:
            raise ValueError(f"expected {steps} batches per epoch, got {position}; set steps_per_epoch")
        if position >= start:
            yield batch[0]


def _seed_global_generators(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _opening(state: TrainState, config: TrainConfig, total: int) -> str:
    """Return the message before the first step."""
    if state.step >= total:
        return f"all {total:,} steps are already done ({state.path})"
    context, method = state.context, state.method
    device = torch.cuda.get_device_name(context.device) if context.device.type == "cuda" else f"{context.device}"
    place = device if context.world_size == 1 else f"{context.world_size} processes, each on {device}"
    backbone, whole = (sum(each.numel() for each in module.parameters()) for module in (method.backbone, method))
    begins = f"resuming after step {state.step:,}" if state.step else "starting"
    if state.raised_from is not None:
        begins += f", with schedules of {config.epochs} instead of {state.raised_from} epochs"
    text = (
        f"{type(method).__name__}: {backbone:,} parameters, {whole:,} with heads and momentum networks, "
        f"{config.precision} on {place}; {begins}, {total - state.step:,} steps to go"
    )
    return f"{text}\n{note}" if (note := _accumulation_note(state, config)) else text


def _accumulation_note(state: TrainState, config: TrainConfig) -> str | None:
    """Return which statistics gradient accumulation changes; None for none."""
    if config.accumulation_steps == 1:
        return None
    coupled = [state.method.batch_coupled] if state.method.batch_coupled else []
    if has_batch_norm(state.method):
        coupled.append("batch norm statistics")
    if state.pair_weighter:
        coupled.append("weights of pairs")
    text = f"{config.accumulation_steps} accumulation steps"
    return f"{text}; computed over one of them only: {'; '.join(coupled)}" if coupled else text


def _nonfinite_message(state: TrainState, step: int) -> str:
    name = first_nonfinite(state.method)
    place = f"; by step {state.step} it is in {name}" if name else " in the loss alone"
    return f"NaN or infinity at step {step}{place}; {_remedy(state)}"


def _remedy(state: TrainState) -> str:
    kept = "nothing was saved yet" if state.saved is None else f"{state.path} holds step {state.saved}"
    return f"{kept}: try a lower learning rate, a longer warm-up or float32 precision, in a new folder"
