"""What ends a training early: a loss that is no number, a signal. All processes end at the same step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import sslzoo
from genviews.pretraining.state import Training
from sslzoo import DistContext, StopSignal

AGREE_EVERY = 5
"""Steps from one agreement of all processes to the next; it costs one small reduction and a look at the device."""
SMALLEST_SCALE = 1e-4
"""Of fp16's loss; below it every gradient overflows. Our choice."""


class Guard:
    """Keeps the first step whose loss was no number, on the device, and lets all processes know in time.

    Args:
        worker: this process.
        stop: what signals reach it.
    """

    def __init__(self, worker: DistContext, stop: StopSignal) -> None:
        self._stop, self._alone = stop, worker.world_size == 1
        self._first_bad = torch.full((), math.inf, device=worker.device)

    def see(self, loss: Tensor, step: int) -> None:
        """Note a step's loss; the device is not waited for."""
        self._first_bad = torch.where(loss.isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def may_save(self, training: Training) -> bool:
        """Whether nothing but numbers was seen and the network is made of them; else the last good file must stay."""
        good = math.isinf(float(self._first_bad)) and training.finite
        if not good:
            self._first_bad.clamp_(max=training.step)
        return good

    def agree(self, training: Training, *, now: bool) -> int:
        """The signal that ends the training after this step, the same on all processes; 0 to go on.

        Args:
            training: where it stands, the same step on all processes.
            now: do not wait for the next agreement, and look at the parameters, too.

        Raises:
            FloatingPointError: on all processes, when one of them has met a loss or a parameter that is no number.
        """
        if not (now or training.step % AGREE_EVERY == 0 or (self._alone and self._stop.number)):
            return 0
        number = torch.tensor(-float(self._stop.number), device=self._first_bad.device)
        first_bad, signal = sslzoo.all_reduce_min(torch.stack([self._first_bad, number])).tolist()
        if math.isinf(first_bad) and (now or signal) and not training.finite:
            first_bad = training.step
        if math.isfinite(first_bad):
            raise FloatingPointError(_diagnosis(training, int(first_bad)))
        if training.scaler.is_enabled() and training.scaler.get_scale() < SMALLEST_SCALE:
            raise FloatingPointError(f"every gradient overflows in fp16 at step {training.step}; {_way_out(training)}")
        return int(-signal)


def _diagnosis(training: Training, step: int) -> str:
    name = sslzoo.first_nonfinite(training.method)
    place = f"; by step {training.step} it is in {name}" if name else " in the loss alone"
    return f"NaN or infinity at step {step}{place}; {_way_out(training)}"


def _way_out(training: Training) -> str:
    kept = "nothing was saved yet" if training.saved is None else f"{training.path} holds step {training.saved}"
    return f"{kept}: try a lower --lr, a longer --warmup-epochs or --precision float32 in a new --out folder"
