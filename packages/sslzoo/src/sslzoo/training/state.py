"""The state of a training: everything that a step changes and a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslzoo.batch_norm import convert_sync_batchnorm
from sslzoo.checkpoint import load_resume, save_resume
from sslzoo.distributed import DistContext, all_reduce_min, init_distributed
from sslzoo.heads import Encoder
from sslzoo.methods import Method
from sslzoo.optim import build_optimizer
from sslzoo.statistics import all_finite
from sslzoo.training.config import TrainConfig
from sslzoo.training.diagnostics import TrainingMonitor


@runtime_checkable
class PairWeighter(Protocol):
    """Computes weights of the pairs of a step, for example from their quality."""

    def weight_fn(self, views: Sequence[Tensor]) -> Callable[[], Tensor]:
        """Return the function that computes one weight per image, called when the networks have seen the views."""
        ...

    def summary(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return scalars and histograms of the last step; called on all processes."""
        ...

    def state_dict(self) -> Any:
        """Return the state for checkpoints."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore the state."""


@dataclass(kw_only=True)
class TrainState:
    """Method, optimizer and step, with their checkpoint.

    Attributes:
        method: the method, without DistributedDataParallel.
        optimizer: its optimizer.
        scaler: gradient scaler; disabled unless the precision is fp16.
        monitor: diagnostics, with the online probe.
        context: rank and device of this process.
        pair_weighter: weights pairs; None: equal weights.
        path: the checkpoint; None: it is not saved.
        fingerprint: settings that a resumed run must share.
        step: number of steps done.
        saved: step of the last checkpoint.
        raised_from: number of epochs before it was raised; None: it was not.
    """

    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # pyright: ignore[reportPrivateImportUsage]
    monitor: TrainingMonitor
    context: DistContext
    pair_weighter: PairWeighter | None = None
    path: Path | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    saved: int | None = None
    raised_from: int | None = None

    def resume(self, *, last_step: int) -> None:
        """Restore the checkpoint, if there is one; `last_step` is the number of steps of the training.

        If the number of epochs was raised, the schedules continue as those of a training of the new length.

        Raises:
            ValueError: it is damaged, belongs to another configuration, or processes read different files.
        """
        if self.path is None:
            return
        resumed = load_resume(self.path, self.method, self.optimizer, self.fingerprint, last_step=last_step)
        if resumed:
            self.step = self.saved = resumed.step
            if resumed.epochs != self.fingerprint.get("epochs"):
                self.raised_from = resumed.epochs
                extra = self.method.get_extra_state()
                self.method.set_extra_state({**extra, "progress": self.step / max(1, last_step)})
            for name, part in self._extra().items():
                if resumed.extra.get(name):
                    self._load(name, part, resumed.extra[name])
        least, most = all_reduce_min(torch.tensor([self.step, -self.step], device=self.context.device)).tolist()
        if least != -most:
            raise ValueError(
                f"expected {self.path} at the same step in all processes, got steps {least} and {-most}; "
                "give a folder that all machines share"
            )

    def _load(self, name: str, part: Any, state: Any) -> None:
        try:
            part.load_state_dict(state)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} holds no state of its {name}; delete it to start afresh") from error

    def save(self) -> None:
        """Write the checkpoint atomically; call it on the main process."""
        assert self.path is not None
        save_resume(
            self.path,
            step=self.step,
            method=self.method,
            optimizer=self.optimizer,
            recipe=self.fingerprint,
            extra={name: part.state_dict() for name, part in self._extra().items()},
        )
        self.saved = self.step

    def _extra(self) -> dict[str, Any]:
        scorer = {"scorer": self.pair_weighter} if self.pair_weighter else {}
        probe = {"probe": self.monitor.probe} if self.monitor.probe else {}
        return {"scaler": self.scaler, **scorer, **probe}

    @property
    def is_finite(self) -> bool:
        """Whether no parameter or buffer holds NaN or infinity."""
        return all_finite([*self.method.parameters(), *self.method.buffers()])


def create_state(
    method: Method,
    config: TrainConfig,
    *,
    context: DistContext | None = None,
    pair_weighter: PairWeighter | None = None,
    path: Path | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> TrainState:
    """Move a method to its device, and create its optimizer, gradient scaler and diagnostics.

    With several processes, batch norms are synchronized unless the method needs separate ones.

    Args:
        method: a method.
        config: the configuration.
        context: rank and device; default: a single process, on the GPU if available.
        pair_weighter: weights pairs; it may have hooks on the backbone.
        path: the checkpoint.
        fingerprint: settings that a resumed run must share; default: those of the configuration.

    Raises:
        ValueError: an option is not supported by the network or the optimizer.
    """
    context = context or init_distributed()
    method = method.to(context.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if context.world_size > 1:
        method = convert_sync_batchnorm(method)
    options = dict(config.optimizer_options)
    if config.fused:
        if config.optimizer == "lars":
            raise ValueError("expected sgd or adamw for the fused option, got lars; leave it out")
        options["fused"] = True
    optimizer = build_optimizer(config.optimizer, method, lr=config.lr, weight_decay=config.weight_decay, **options)
    return TrainState(
        method=method,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(context.device.type, enabled=config.precision == "fp16"),  # pyright: ignore
        monitor=TrainingMonitor(method, context, num_classes=config.num_classes),
        context=context,
        pair_weighter=pair_weighter,
        path=path,
        fingerprint=config.fingerprint() if fingerprint is None else dict(fingerprint),
    )


def prepare_networks(method: Method, config: TrainConfig) -> None:
    """Enable activation checkpointing and compilation; call it after loading a checkpoint.

    Raises:
        ValueError: the backbone does not support activation checkpointing.
    """
    for encoder in [module for module in method.modules() if isinstance(module, Encoder)]:
        if config.checkpoint_activations:
            _checkpoint_activations(encoder.backbone)
        if config.compile:
            encoder.backbone.compile()
            encoder.head.compile()


def _checkpoint_activations(backbone: nn.Module) -> None:
    """Use timm's own switch, block by block."""
    if has_batch_norm(backbone) or not hasattr(backbone, "set_grad_checkpointing"):
        raise ValueError(
            "expected a vision transformer for checkpoint_activations, got another network, whose batch norms would "
            "update their running statistics twice per step; use accumulation_steps to save memory"
        )
    backbone.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether a module has batch norms."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
