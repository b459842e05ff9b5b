"""Train Mask R-CNN from a self-supervised backbone, with torchvision or detectron2."""

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genviews_core.backbones import backbone_hash
from genviews_core.distributed import all_reduce_sum, rank, world_size
from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.config import MOMENTUM, WEIGHT_DECAY, DetectionConfig
from ssl_eval.coco.detectron2_detector import Detectron2Backbone, Detectron2Detector
from ssl_eval.coco.inference import Detector
from ssl_eval.coco.precise_bn import update_bn_statistics
from ssl_eval.coco.sampler import read_batches, training_batches
from ssl_eval.coco.torchvision_detector import TorchvisionDetector
from ssl_eval.distributed import lockstep
from ssl_eval.rng import rng_scope
from ssl_eval.training_state import restore, save

BACKENDS = ("detectron2", "torchvision")
SAVE_EVERY = 1000
"""Steps between two writes of the resume file, of some 350 MB with ResNet-50."""


def train_mask_rcnn(
    backbone: nn.Module | Detectron2Backbone,
    train: CocoInstances,
    *,
    recipe: DetectionConfig,
    backend: str = "detectron2",
    seed: int = 0,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    workers: int = 0,
    resume: Path | None = None,
    save_every: int = SAVE_EVERY,
    save_now: Callable[[], bool] = lambda: False,
    convert_sync_batchnorm: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm,
    on_step: Callable[[int, dict[str, float]], object] = lambda step, losses: None,
) -> Detector:
    """Train all parameters of the network.

    Args:
        backbone: a ResNet with torchvision's names for torchvision, a Detectron2Backbone for detectron2.
        train: the training data.
        recipe: the configuration.
        backend: "detectron2" or "torchvision"; their results are not comparable.
        seed: seed of the initial weights, the order of the images and all random draws.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share each batch.
        workers: worker processes that read images, for each process.
        resume: resume file, written every `save_every` steps and at the end; bit-identical on a CPU.
        save_every: steps between two writes of the resume file.
        save_now: called after every step on every process; True on the first one writes the resume file.
        convert_sync_batchnorm: synchronizes batch norms over the group; torch's function needs GPUs.
        on_step: called after every step with the number of finished steps and the losses of this process.

    Raises:
        ValueError: detectron2 is not installed, the backbone does not fit, there are no targets, an image cannot be
            read, the loss is not finite, or the resume file belongs to another training.
    """
    with rng_scope(seed, "coco/weights", device):
        detector = _detector(backbone, len(train.categories), recipe, backend)
    detector.network.to(device)
    if world_size(group) > 1:
        detector.network = convert_sync_batchnorm(detector.network)
    network = detector.network.train()
    optimizer = _optimizer(network)
    settings = {
        "backend": backend,
        "backbone": _hash(backbone),
        "recipe": asdict(recipe),
        "data": hashlib.blake2b(train.packed.numpy().tobytes(), digest_size=16).hexdigest(),
        "seed": seed,
    }
    start = restore(resume, settings, network, optimizer, recipe.iterations)
    requests = training_batches(train, recipe, seed, start=start, rank=rank(group), processes=world_size(group))
    requests = itertools.islice(requests, recipe.iterations - start + recipe.precise_norm)
    batches = read_batches(train, requests, recipe, detector.to_input, workers)
    compute = _compute(detector, device, amp)
    steps = lockstep(itertools.islice(batches, recipe.iterations - start), group, device)
    for step, batch in enumerate(steps, start):
        for part in optimizer.param_groups:
            part["lr"] = recipe.rate(step)
        with rng_scope(seed, f"coco/step/{step}/{rank(group)}", device):
            losses = compute(batch)
        _sgd_step(network, optimizer, sum(losses.values()), step, group, resume)  # pyright: ignore
        done = step + 1
        due = save_now() or done % save_every == 0 or done == recipe.iterations
        if resume is not None and rank(group) == 0 and due:
            save(resume, settings, done, network, optimizer)
        on_step(done, {name: float(loss.detach()) for name, loss in losses.items()})
    if recipe.precise_norm:
        with rng_scope(seed, f"coco/statistics/{rank(group)}", device):
            update_bn_statistics(network, compute, batches, group)
    return detector


def _detector(
    backbone: nn.Module | Detectron2Backbone, classes: int, recipe: DetectionConfig, backend: str
) -> Detector:
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "detectron2":
        if not isinstance(backbone, Detectron2Backbone):
            raise ValueError(
                f"expected a Detectron2Backbone (settings, and weights under its names), got {type(backbone).__name__}"
            )
        return Detectron2Detector(backbone, classes, recipe)
    if isinstance(backbone, Detectron2Backbone):
        raise ValueError("expected a ResNet with torchvision's names, got a Detectron2Backbone")
    return TorchvisionDetector(backbone, classes, recipe)


def _compute(
    detector: Detector, device: str | torch.device, amp: torch.dtype | None
) -> Callable[[list[Any]], dict[str, Tensor]]:
    def compute(batch: list[Any]) -> dict[str, Tensor]:
        with torch.autocast(torch.device(device).type, dtype=amp, enabled=amp is not None):
            return detector.losses(batch)

    return compute


def _sgd_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    step: int,
    group: dist.ProcessGroup | None,
    resume: Path | None,
) -> None:
    """Take one SGD step on the mean loss of all processes."""
    mean = all_reduce_sum(loss.detach().clone(), group) / world_size(group)
    if not mean.isfinite():
        kept = f"{resume} keeps the last good checkpoint; " if resume is not None and resume.exists() else ""
        raise ValueError(f"non-finite loss {float(mean)} at step {step}; {kept}give a smaller learning rate")
    optimizer.zero_grad()
    loss.backward()
    _mean_gradients(network, group)
    optimizer.step()


def _mean_gradients(network: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Average gradients over all processes, in one message; parameters without gradient count as zero."""
    if group is None:
        return
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
    total = all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]), group) / world_size(group)
    for parameter, part in zip(trained, total.split([each.numel() for each in trained]), strict=True):
        parameter.grad = part.view_as(parameter)


def _optimizer(network: nn.Module) -> torch.optim.SGD:
    """Return SGD without weight decay on batch norms."""
    norms = {id(each) for part in network.modules() if isinstance(part, _BatchNorm) for each in part.parameters()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if id(each) not in norms], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in trained if id(each) in norms], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM)


def _hash(backbone: nn.Module | Detectron2Backbone) -> str:
    if isinstance(backbone, nn.Module):
        return backbone_hash(backbone)
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(backbone.weights.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()
