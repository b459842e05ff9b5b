"""Linear evaluation as in papers: a linear classifier on a frozen backbone, trained with augmentation.

Shapes: b batch, d feature width, r learning rates, c classes, h x w pixels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from genviews_core.backbones import backbone_hash
from genviews_core.checkpoint import load_checkpoint, restoring, save_checkpoint
from genviews_core.distributed import rank
from ssl_eval.classification import Scores, Training, batches_of, check_labels, feature_width, score, steps_of
from ssl_eval.distributed import lockstep
from ssl_eval.feature_maps import prefix_of
from ssl_eval.features import evaluating
from ssl_eval.linear import LinearResult, best_learning_rate
from ssl_eval.protocols import ClassTokens, LinearProtocol
from ssl_eval.softmax_regression import LinearClassifiers, sgd_step


@torch.no_grad()
def linear_evaluation(
    backbone: nn.Module,
    train: Training,
    test: Iterable[Sequence[Tensor]],
    *,
    protocol: LinearProtocol,
    num_classes: int,
    learning_rates: Sequence[float] = (),
    held_out: Iterable[Sequence[Tensor]] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    resume: Path | None = None,
    on_epoch: Callable[[int, int], object] = lambda done, epochs: None,
) -> LinearResult:
    """Train a linear classifier by a protocol, and test the last epoch's classifier once.

    Several learning rates share each forward pass of the backbone; the result is that of the best one on `held_out`
    images. (Most official scripts report the best epoch on the test set instead.)

    Args:
        backbone: images [b, 3, h, w] to features [b, d]; used unchanged, in evaluation mode.
        train: yields augmented (images, labels), `protocol.batch_size` images per step over all processes.
        test: yields (images, labels); with a group, each image on one process only.
        protocol: the protocol.
        num_classes: number of classes c.
        learning_rates: trained together; the protocol's own if empty.
        held_out: labeled images that neither `train` nor `test` has; needed by several learning rates.
        seed: seed of the initial weights.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share the images.
        resume: resume file, written after every epoch; bit-identical on a CPU.
        on_epoch: called after every epoch with the numbers of finished and of all epochs.

    Raises:
        ValueError: there are no images, labels are out of range, the backbone does not return vectors, held-out images
            are missing, training diverged, or the resume file belongs to another training.
    """
    rates = tuple(dict.fromkeys(learning_rates)) or (protocol.learning_rate,)
    if len(rates) > 1 and held_out is None:
        raise ValueError(
            f"expected held_out images to choose from {len(rates)} learning rates, got none; give them, or one rate"
        )
    frozen = _Frozen(features_of(backbone, protocol.class_tokens).to(device), torch.device(device), amp)
    with evaluating(frozen.network):
        width = feature_width(frozen.network, test, device)
        model = LinearClassifiers.start(len(rates), num_classes, width, seed=seed, device=device)
        settings = _settings(backbone, protocol, rates, num_classes, width, seed)
        _train(model, frozen, train, protocol, rates, group, resume, settings, on_epoch)
        measure = partial(
            score,
            classify=lambda images: model.logits(frozen(images)),
            num_classes=num_classes,
            classifiers=len(rates),
            device=device,
            group=group,
        )
        scores = dict.fromkeys(rates, 0.0) if held_out is None else _top1(rates, measure(held_out))
        finite = model.weight.isfinite().flatten(1).all(dim=1).tolist()
        whole = {rate: scores[rate] if ends else math.nan for rate, ends in zip(rates, finite, strict=True)}
        chosen = best_learning_rate(whole)
        reached = measure(test)[rates.index(chosen)]
    holdout = {} if held_out is None else scores
    return LinearResult(accuracy=reached.top1, top5=reached.top5, learning_rate=chosen, holdout_accuracies=holdout)


@dataclass(frozen=True)
class _Frozen:
    """Frozen backbone: maps images to features."""

    network: nn.Module
    device: torch.device
    amp: torch.dtype | None

    def __call__(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        with torch.autocast(self.device.type, dtype=self.amp, enabled=self.amp is not None):
            return self.network(images.to(self.device, non_blocking=True)).float()


def _train(
    model: LinearClassifiers,
    frozen: _Frozen,
    train: Training,
    protocol: LinearProtocol,
    rates: Sequence[float],
    group: dist.ProcessGroup | None,
    resume: Path | None,
    settings: dict[str, Any],
    on_epoch: Callable[[int, int], object],
) -> None:
    """Train the remaining epochs."""
    velocity = LinearClassifiers.zeros_like(model)
    tensors = [*model.tensors(), *velocity.tensors()]
    peaks, steps = torch.tensor(rates, device=frozen.device), steps_of(train)
    for epoch in range(_restore(resume, settings, tensors, protocol.epochs), protocol.epochs):
        for step, (images, labels, *_) in enumerate(lockstep(batches_of(train, epoch), group, frozen.device)):
            check_labels(labels, model.bias.shape[1])
            now = peaks * protocol.schedule.factor(epoch, protocol.epochs, step / steps)
            sgd_step(model, velocity, frozen(images), labels.to(frozen.device), now, protocol.descent, group)
        if resume is not None and rank(group) == 0:
            state = {"tensors": [tensor.cpu() for tensor in tensors]}
            save_checkpoint(resume, step=epoch + 1, settings=settings, state=state)
        on_epoch(epoch + 1, protocol.epochs)


def _top1(rates: Sequence[float], scores: list[Scores]) -> dict[float, float]:
    return {rate: each.top1 for rate, each in zip(rates, scores, strict=True)}


def _settings(
    backbone: nn.Module, protocol: LinearProtocol, rates: Sequence[float], num_classes: int, width: int, seed: int
) -> dict[str, Any]:
    """Return the settings that a resume file must match."""
    return {
        "backbone": backbone_hash(backbone),
        "protocol": asdict(protocol),
        "learning_rates": list(rates),
        "num_classes": num_classes,
        "width": width,
        "seed": seed,
    }


def _restore(resume: Path | None, settings: dict[str, Any], tensors: list[Tensor], last: int) -> int:
    """Restore the tensors from the resume file, if it exists, and return the number of finished epochs."""
    loaded = None if resume is None else load_checkpoint(resume, settings, last_step=last)
    if resume is None or loaded is None:
        return 0
    done, state = loaded
    with restoring(resume):
        for tensor, saved in zip(tensors, state["tensors"], strict=True):
            tensor.copy_(saved)
    return done


class TokenFeatures(nn.Module):
    """Wraps a vision transformer of timm or DINO's code, and returns the chosen tokens.

    Raises:
        ValueError: the backbone has no blocks and final norm, too few blocks, or no class token.
    """

    def __init__(self, backbone: nn.Module, chosen: ClassTokens):
        super().__init__()
        blocks, norm = getattr(backbone, "blocks", None), getattr(backbone, "norm", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not isinstance(norm, nn.Module):
            name = type(backbone).__name__
            raise ValueError(
                f"expected transformer blocks, got none in {name}; choose a protocol that uses the network's own output"
            )
        if not 1 <= chosen.blocks <= len(blocks):
            raise ValueError(f"expected at least {chosen.blocks} blocks, got {len(blocks)}")
        if getattr(backbone, "cls_token", None) is None:
            raise ValueError(
                "expected a class token in the vision transformer, got none; choose a protocol that uses its own output"
            )
        self.backbone, self.chosen = backbone, chosen
        self.prefix = prefix_of(backbone)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """Return [class token of each block, the earliest first; mean patch token]."""
        tokens = [self.backbone.norm(each) for each in self._after_blocks(images)]  # pyright: ignore
        parts = [each[:, 0] for each in tokens]
        if self.chosen.average:
            parts.append(tokens[-1][:, self.prefix :].mean(dim=1))
        return torch.cat(parts, dim=1)

    def _after_blocks(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b t d"]]:
        """Return the outputs of the last blocks."""
        seen: list[Tensor] = []
        blocks = list(self.backbone.blocks)[-self.chosen.blocks :]  # pyright: ignore
        hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in blocks]
        try:
            self.backbone(images)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def features_of(backbone: nn.Module, chosen: ClassTokens | None) -> nn.Module:
    """Return the backbone, or its `TokenFeatures`."""
    return backbone if chosen is None else TokenFeatures(backbone, chosen)
