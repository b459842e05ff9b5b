"""Semantic segmentation by a linear head on a frozen network: its training.

Shapes: b images, h x w pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_eval.features import evaluating
from ssl_eval.processes import in_step, rank_in, sum_gradients, sum_over
from ssl_eval.results import backbone_hash
from ssl_eval.segmentation.head import SegmentationHead
from ssl_eval.segmentation.last_map import FrozenMaps
from ssl_eval.segmentation.mean_iou import LEFT_OUT
from ssl_eval.training_state import restore, save_state

SAVED_EVERY = 500
"""Steps between two writings of the resume file."""


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol:
    """AdamW, its rate raised linearly and then lowered linearly to 0.

    The defaults are those of DINOv2's linear head for PASCAL VOC 2012 (https://arxiv.org/abs/2304.07193, section 7.4),
    whose settings Jiawei-Yang/Denoising-ViT@2d08bd8 evaluation/configs/vitb_voc2012_linear_config.py keeps.

    Attributes:
        steps: of training.
        batch_size: images a step, over all processes.
        learning_rate: the highest.
        weight_decay: decoupled.
        warm_up: share of the steps in which the rate rises.
        crop: side of the training crops and of the test windows, pixels.
        short: shortest side of the images before cropping, and of the test images.
        stride: from window to window.
        scales: smallest and largest factor of a training image's size.
        max_share: share of a crop that one class may have, if ten draws find another.
        distort: whether brightness, contrast, saturation and hue are drawn.
    """

    steps: int = 40_000
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warm_up: float = 1500 / 40_000
    crop: int = 512
    short: int = 512
    stride: int = 341
    scales: tuple[float, float] = (0.5, 2.0)
    max_share: float = 0.75
    distort: bool = True

    def rate(self, step: int) -> float:
        """Of a step, counted from 0; mmcv's poly schedule of power 1 with linear warm-up from a millionth."""
        lowered = self.learning_rate * (1 - step / self.steps)
        warming = self.warm_up * self.steps
        return lowered * (1 - (1 - step / warming) * (1 - 1e-6)) if step < warming else lowered


def train_segmentation(
    network: nn.Module,
    batches: Callable[[int, int], Iterable[tuple[Tensor, Tensor]]],
    *,
    protocol: SegmentationProtocol,
    num_classes: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    resume: Path | None = None,
    on_step: Callable[[int, float], object] = lambda done, loss: None,
) -> SegmentationHead:
    """Learn every pixel's class from the maps; the network stays as it is.

    The loss is the mean cross-entropy over the pixels that count, of all processes. (mmsegmentation divides by all
    pixels, those of value 255 too.)

    Args:
        network: images [b, 3, h, w] to maps [b, d, r, s]; see `LastMap`.
        batches: (first, last) to the batches of these steps: images [b, 3, h, w] as the network wants them, and the
            classes of their pixels, [b, h, w], 255 where none.
        protocol: of the training.
        num_classes: c.
        seed: of the initial weights.
        device: where to compute.
        amp: autocast to this type while the network runs.
        group: processes that share each batch.
        resume: a file to go on from, written every 500 steps; bit-identical on a CPU.
        on_step: called with how many steps are done and their last loss.

    Raises:
        ValueError: training diverged, or the resume file is of another training.
    """
    look = FrozenMaps(network.to(device), torch.device(device), amp)
    settings = {"network": backbone_hash(network), "protocol": asdict(protocol), "num_classes": num_classes}
    settings["seed"] = seed
    with evaluating(network):
        head = SegmentationHead(_channels(look, protocol.crop), num_classes, seed=seed).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=protocol.weight_decay)
        first = restore(resume, settings, head, optimizer, protocol.steps)
        head.train()
        steps = in_step(batches(first, protocol.steps), group, device)
        for step, (images, masks) in enumerate(steps, start=first):
            loss = _step(look, head, optimizer, images, masks.to(device).long(), protocol.rate(step), group)
            if not loss < float("inf"):
                raise ValueError(f"training diverged at step {step}: give a smaller learning rate")
            done = step + 1
            if resume is not None and rank_in(group) == 0 and (done % SAVED_EVERY == 0 or done == protocol.steps):
                state = {"model": head.state_dict(), "optimizer": optimizer.state_dict()}
                save_state(resume, settings, done, state)
            on_step(done, loss)
    return head.eval()


def _step(
    look: FrozenMaps,
    head: SegmentationHead,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    masks: Int[Tensor, "b h w"],
    rate: float,
    group: dist.ProcessGroup | None,
) -> float:
    """One step of AdamW on the mean over the pixels of all processes; the loss before it."""
    counted = sum_over(group, (masks != LEFT_OUT).sum().float()).clamp(min=1)
    logits = head(look(images), (masks.shape[1], masks.shape[2]), group)
    loss = cross_entropy(logits, masks, ignore_index=LEFT_OUT, reduction="sum") / counted
    optimizer.zero_grad()
    loss.backward()
    sum_gradients(head, group)
    for part in optimizer.param_groups:
        part["lr"] = rate
    optimizer.step()
    return float(sum_over(group, loss.detach()))


def _channels(look: FrozenMaps, side: int) -> int:
    return look(torch.zeros(1, 3, side, side)).shape[1]
