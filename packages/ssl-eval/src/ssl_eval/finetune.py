"""Semi-supervised evaluation: fine-tuning of backbone and classifier on a fraction of the labels.

Shapes: b batch, c classes, h x w pixels.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genviews_core.backbones import backbone_hash
from genviews_core.distributed import all_reduce_sum, rank, world_size
from ssl_eval.classification import Scores, Training, batches_of, check_labels, feature_width, score, steps_of
from ssl_eval.distributed import lockstep, sum_gradients
from ssl_eval.features import evaluating
from ssl_eval.protocols import FineTuneProtocol
from ssl_eval.rng import rng_scope, seeded_generator
from ssl_eval.softmax_regression import INITIAL_DEVIATION
from ssl_eval.training_state import restore, save


def finetune(
    backbone: nn.Module,
    train: Training,
    test: Iterable[Sequence[Tensor]],
    *,
    protocol: FineTuneProtocol,
    num_classes: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    resume: Path | None = None,
    on_epoch: Callable[[int, int], object] = lambda done, epochs: None,
) -> Scores:
    """Train a copy of the backbone with a linear classifier, and test the last epoch's model once.

    Batch norm is in training mode, as in the official scripts. (They report the best epoch on the test set.)

    Args:
        backbone: images [b, 3, h, w] to features [b, d]; it is not modified. With a group its batch norms must be
            synchronized (torch.nn.SyncBatchNorm), or the processes would train different networks.
        train: yields augmented (images, labels), `protocol.batch_size` images per step over all processes.
        test: yields (images, labels); with a group, each image on one process only.
        protocol: the protocol.
        num_classes: number of classes c.
        seed: seed of the classifier's initial weights and of dropout.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share the images.
        resume: resume file, written after every epoch; bit-identical on a CPU.
        on_epoch: called after every epoch with the numbers of finished and of all epochs.

    Raises:
        ValueError: no images, labels that are no classes, a backbone that returns no vectors or has batch norms that
            are not synchronized, training diverged, or the resume file is of another training.
    """
    _check_batch_norm(backbone, group)
    body = copy.deepcopy(backbone).to(device).requires_grad_(True)
    with evaluating(body):
        width = feature_width(body, test, device)
    settings = {
        "backbone": backbone_hash(backbone),
        "protocol": asdict(protocol),
        "num_classes": num_classes,
        "width": width,
        "seed": seed,
    }
    model = nn.Sequential(body, _head(width, num_classes, seed).to(device))
    optimizer = _optimizer(model, protocol)
    kind = torch.device(device).type

    def classify(images: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c"]:
        with torch.autocast(kind, dtype=amp, enabled=amp is not None):
            return model(images.to(device, non_blocking=True)).float()

    for epoch in range(restore(resume, settings, model, optimizer, protocol.epochs), protocol.epochs):
        with rng_scope(seed, f"dropout/{epoch}/{rank(group)}", device):
            _train_epoch(model.train(), classify, optimizer, train, epoch, protocol, num_classes, device, group)
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise ValueError(f"training diverged in epoch {epoch}; give smaller learning rates")
        if resume is not None and rank(group) == 0:
            save(resume, settings, epoch + 1, model, optimizer)
        on_epoch(epoch + 1, protocol.epochs)
    with evaluating(model):
        (reached,) = score(
            test, lambda images: classify(images)[:, None], num_classes=num_classes, device=device, group=group
        )
    return reached


def _train_epoch(
    model: nn.Module,
    classify: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    train: Training,
    epoch: int,
    protocol: FineTuneProtocol,
    num_classes: int,
    device: str | torch.device,
    group: dist.ProcessGroup | None,
) -> None:
    """Take an SGD step per batch on the mean loss over all processes, at the scheduled learning rates."""
    steps = steps_of(train)
    for step, (images, labels, *_) in enumerate(lockstep(batches_of(train, epoch), group, device)):
        check_labels(labels, num_classes)
        factor = protocol.schedule.factor(epoch, protocol.epochs, step / steps)
        for part, peak in zip(optimizer.param_groups, (protocol.backbone_lr, protocol.head_lr), strict=True):
            part["lr"] = peak * factor
        everyone = all_reduce_sum(torch.tensor(float(len(labels)), device=device), group)
        loss = cross_entropy(classify(images), labels.to(device), reduction="sum") / everyone
        optimizer.zero_grad()
        loss.backward()
        sum_gradients(model, group)
        optimizer.step()


def _optimizer(model: nn.Sequential, protocol: FineTuneProtocol) -> torch.optim.Optimizer:
    """Return SGD with two parameter groups: the backbone, then the head."""
    parts = [{"params": list(part.parameters())} for part in model]
    return torch.optim.SGD(parts, lr=0.0, momentum=protocol.momentum, weight_decay=protocol.weight_decay)


def _head(width: int, num_classes: int, seed: int) -> nn.Linear:
    head = nn.Linear(width, num_classes)
    with torch.no_grad():
        head.weight.copy_(
            torch.randn(head.weight.shape, generator=seeded_generator(seed, "weights")) * INITIAL_DEVIATION
        )
        head.bias.zero_()
    return head


def _check_batch_norm(backbone: nn.Module, group: dist.ProcessGroup | None) -> None:
    alone = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if world_size(group) > 1 and any(isinstance(part, alone) for part in backbone.modules()):
        raise ValueError(
            "expected synchronized batch norms with several processes, got batch norms of one process; "
            "convert them first (torch.nn.SyncBatchNorm.convert_sync_batchnorm)"
        )
