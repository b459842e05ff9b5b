"""What a training tells while it goes on: log lines, curves, progress, warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import sslzoo
from genviews.pretraining.execution import Execution
from genviews.pretraining.speed import Speedometer
from genviews.pretraining.state import Training
from genviews.pretraining.wandb_curves import WandbCurves
from genviews.pretraining.watch import CollapseAlarm
from genviews.recipes import Recipe
from pairdata import FolderLoader
from sslzoo import DistContext

OnStep = Callable[[int, int, dict[str, float]], None]


def opening(recipe: Recipe, training: Training, loader: FolderLoader, worker: DistContext, total: int) -> str:
    """Return two lines on data, network, device and steps, logged before training."""
    device = torch.cuda.get_device_name(worker.device) if worker.device.type == "cuda" else f"{worker.device}"
    place = device if worker.world_size == 1 else f"{worker.world_size} processes, each on {device}"
    method = training.method
    parameters = [sum(each.numel() for each in module.parameters()) for module in (method, method.backbone)]
    if training.step >= total:
        return f"{recipe.name}: all {total:,} steps are already done ({training.path})"
    begins = f"resuming after step {training.step:,}" if training.step else "starting"
    return (
        f"{recipe.name}: {len(loader.index):,} images, {recipe.epochs} x {len(loader):,} steps of "
        f"{recipe.batch_size} images, policy {recipe.policy}\n"
        f"{recipe.backbone}: {parameters[1]:,} parameters, {parameters[0]:,} with heads and momentum networks, "
        f"{recipe.precision} on {place}; {begins}, {total - training.step:,} steps to go"
    )


class Report:
    """The leading process writes; the others take part where something is summed over all.

    Args:
        recipe: what is trained.
        execution: what is wanted.
        training: where it stands.
        out: where the log goes.
        worker: this process.
        total: steps of the whole training.
        on_step: called with (step, total, scalars) on the leading process.
    """

    def __init__(
        self,
        recipe: Recipe,
        execution: Execution,
        training: Training,
        out: Path,
        worker: DistContext,
        total: int,
        on_step: OnStep | None,
    ) -> None:
        self.speed = Speedometer(worker, recipe.batch_size, execution.peak_tflops)
        self.speed.restart(training.step)
        self._alarm = CollapseAlarm()
        self._training, self._total, self._on_step, self._log = training, total, on_step, None
        if worker.is_main:
            others = [WandbCurves(execution.wandb, out, training.record)] if execution.wandb else []
            self._log = sslzoo.MetricWriter(out, resume_step=training.step, sinks=others)
            note = execution.note(recipe, training.method)
            if note:
                print(note)

    def show(self, metrics: dict[str, Tensor]) -> None:
        """Show the first step immediately."""
        if self._on_step:
            scalars = {"loss": float(metrics["loss"])} | self.speed.read(self._training.step)
            self._on_step(self._training.step, self._total, scalars)

    def tell(self, metrics: dict[str, Tensor], measure: Callable[[], dict[str, float]] | None) -> None:
        """Of the step just done. All processes must call it; `measure` takes its time and gives further scalars."""
        training, step = self._training, self._training.step
        scalars = {name: float(value) for name, value in metrics.items()}
        speed = self.speed.read(step)
        of_weights, histograms = training.weigher.summary() if training.weigher else ({}, {})
        scalars |= of_weights | training.watch.summary() | (measure() if measure else {})
        if training.scaler.is_enabled():
            scalars["loss_scale"] = training.scaler.get_scale()
        if self._log:
            self._log.write(step, histograms, **scalars, lr=training.optimizer.param_groups[0]["lr"])
            self._log.write_speed(step, **speed)
            collapse = self._alarm.look(step, scalars)
            if collapse:
                print(collapse)
            if self._on_step:
                self._on_step(step, self._total, scalars | speed)
        if measure:
            self.speed.restart(step)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        if self._log:
            self._log.close()
