"""All that a training step changes: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sslzoo
from genviews.pretraining.pair_weighting import PairWeigher
from genviews.pretraining.watch import Watch
from sslzoo.methods import Method


@dataclass(kw_only=True)
class Training:
    """Where a training stands.

    Attributes:
        path: of the checkpoint.
        method: bare, without DistributedDataParallel.
        optimizer: its optimizer.
        scaler: of fp16's loss; switched off for other precisions.
        weigher: what weighs pairs.
        watch: what looks on.
        record: what a resumed run must find again.
        step: how many steps are done.
        saved: the step of the last checkpoint.
    """

    path: Path
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    weigher: PairWeigher | None
    watch: Watch
    record: dict[str, Any]
    step: int = 0
    saved: int | None = None

    def resume(self, *, last_step: int) -> None:
        """Resume from the checkpoint, if there is one; `last_step` is the number of steps of the training.

        Raises:
            ValueError: it is damaged or belongs to another recipe, or the processes do not read the same file.
        """
        resumed = sslzoo.load_resume(self.path, self.method, self.optimizer, self.record, last_step=last_step)
        if resumed:
            self.step = self.saved = resumed.step
            for name, part in self._others().items():
                if resumed.extra.get(name):
                    self._load(name, part, resumed.extra[name])
        least, most = sslzoo.all_reduce_min(torch.tensor([self.step, -self.step], device=self.watch.device)).tolist()
        if least != -most:
            raise ValueError(
                f"{self.path} is at step {least} for one process and {-most} for another: share the folder"
            )

    def _load(self, name: str, part: Any, state: Any) -> None:
        try:
            part.load_state_dict(state)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} holds no state of its {name}; delete it to start afresh") from error

    @property
    def finite(self) -> bool:
        """Whether the network is made of numbers."""
        return sslzoo.all_finite([*self.method.parameters(), *self.method.buffers()])

    def save(self) -> None:
        """Write the checkpoint."""
        sslzoo.save_resume(
            self.path,
            step=self.step,
            method=self.method,
            optimizer=self.optimizer,
            recipe=self.record,
            extra={name: part.state_dict() for name, part in self._others().items()},
        )
        self.saved = self.step

    def _others(self) -> dict[str, Any]:
        scorer = {"scorer": self.weigher.scorer} if self.weigher else {}
        probe = {"probe": self.watch.probe} if self.watch.probe else {}
        return {"scaler": self.scaler, **scorer, **probe}
