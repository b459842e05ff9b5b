"""A linear segmentation head on a frozen backbone: batch norm and a 1 x 1 convolution, and its training.

Shapes: b images, d channels, c classes, r x s positions of a feature map, h x w pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, interpolate

from genviews_core.backbones import backbone_hash
from genviews_core.distributed import all_reduce_sum, rank
from ssl_eval.distributed import lockstep, sum_gradients
from ssl_eval.feature_maps import FrozenMaps
from ssl_eval.features import evaluating
from ssl_eval.rng import seeded_generator
from ssl_eval.segmentation.mean_iou import IGNORE_INDEX
from ssl_eval.softmax_regression import INITIAL_DEVIATION
from ssl_eval.training_state import restore, save


class SyncBatchNorm(nn.Module):
    """Batch norm over the images of all processes, for inputs without gradient.

    As torch.nn.BatchNorm2d, with its defaults; the statistics have no gradient, so any backend works.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, epsilon: float = 1e-5):
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(
        self, maps: Float[Tensor, "b d r s"], group: dist.ProcessGroup | None = None
    ) -> Float[Tensor, "b d r s"]:
        """Normalize with the statistics of this batch in training mode, otherwise with the running ones."""
        mean, variance = self._measure(maps.detach(), group) if self.training else (self.mean, self.variance)
        return batch_norm(maps, mean, variance, self.weight, self.bias, training=False, eps=self.epsilon)

    @torch.no_grad()
    def _measure(self, maps: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
        """Compute mean and variance over all processes, and update the running statistics."""
        count = maps.new_tensor([maps.numel() / maps.shape[1]])
        total, count = all_reduce_sum(torch.cat([maps.sum(dim=(0, 2, 3)), count]), group).split([maps.shape[1], 1])
        mean = total / count
        variance = all_reduce_sum((maps - mean[:, None, None]).square().sum(dim=(0, 2, 3)), group) / count
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance


class SegmentationHead(nn.Module):
    """Maps feature maps to the logits of every pixel.

    As facebookresearch/dinov2@b8931f7 dinov2/eval/segmentation/models/decode_heads/linear_head.py (BNHead), whose 1 x 1
    convolution is initialized with standard deviation 0.01 and zero bias (mmsegmentation's BaseDecodeHead).

    Args:
        channels: number of channels d.
        num_classes: number of classes c.
        seed: seed of the initial weights.
    """

    def __init__(self, channels: int, num_classes: int, *, seed: int):
        super().__init__()
        self.norm, self.classify = SyncBatchNorm(channels), nn.Conv2d(channels, num_classes, 1)
        assert self.classify.bias is not None
        with torch.no_grad():
            first = torch.randn(self.classify.weight.shape, generator=seeded_generator(seed, "segmentation head"))
            self.classify.weight.copy_(first * INITIAL_DEVIATION)
            self.classify.bias.zero_()

    def forward(
        self, maps: Float[Tensor, "b d r s"], size: tuple[int, int], group: dist.ProcessGroup | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Return the logits of each position, resized bilinearly to (h, w) = `size`."""
        return interpolate(self.classify(self.norm(maps, group)), size=size, mode="bilinear", align_corners=False)


SAVED_EVERY = 500
"""Steps between two writings of the resume file."""


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol:
    """AdamW with linear warmup and linear decay to 0.

    The defaults are those of DINOv2's linear head for PASCAL VOC 2012 (https://arxiv.org/abs/2304.07193, section 7.4),
    whose settings Jiawei-Yang/Denoising-ViT@2d08bd8 evaluation/configs/vitb_voc2012_linear_config.py uses.

    Attributes:
        steps: number of steps.
        batch_size: images per step, over all processes.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay.
        warm_up: fraction of the steps with warmup.
        crop: size of the training crops and of the test windows, pixels.
        short: shorter edge of the images before cropping, and of the test images.
        stride: distance of the windows, pixels.
        scales: smallest and largest factor of a training image's size.
        max_share: maximum fraction of a crop that one class may cover, if ten draws suffice.
        distort: whether to jitter brightness, contrast, saturation and hue.
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
        """Return the learning rate of a step, counted from 0: mmcv's poly schedule of power 1 with linear warmup."""
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
    """Train a linear head that classifies pixels from the feature maps of a frozen network.

    The loss is the mean cross-entropy over the labeled pixels of all processes. (mmsegmentation divides by the number
    of all pixels, including ignored ones.)

    Args:
        network: maps images [b, 3, h, w] to feature maps [b, d, r, s]; see `FeatureMapExtractor`.
        batches: (first, last) to the batches of these steps: images [b, 3, h, w] as the network wants them, and the
            classes of their pixels, [b, h, w], 255 where none.
        protocol: the protocol.
        num_classes: number of classes c.
        seed: seed of the initial weights.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share each batch.
        resume: resume file, written every 500 steps; bit-identical on a CPU.
        on_step: called with the number of finished steps and the last loss.

    Raises:
        ValueError: training diverged, or the resume file belongs to another training.
    """
    look = FrozenMaps(network.to(device), torch.device(device), amp)
    settings = {"network": backbone_hash(network), "protocol": asdict(protocol), "num_classes": num_classes}
    settings["seed"] = seed
    with evaluating(network):
        head = SegmentationHead(_channels(look, protocol.crop), num_classes, seed=seed).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), weight_decay=protocol.weight_decay)
        first = restore(resume, settings, head, optimizer, protocol.steps)
        head.train()
        steps = lockstep(batches(first, protocol.steps), group, device)
        for step, (images, masks) in enumerate(steps, start=first):
            loss = _step(look, head, optimizer, images, masks.to(device).long(), protocol.rate(step), group)
            if not loss < float("inf"):
                raise ValueError(f"training diverged at step {step}; give a smaller learning rate")
            done = step + 1
            if resume is not None and rank(group) == 0 and (done % SAVED_EVERY == 0 or done == protocol.steps):
                save(resume, settings, done, head, optimizer)
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
    """Take one AdamW step on the mean over the pixels of all processes; return the loss."""
    counted = all_reduce_sum((masks != IGNORE_INDEX).sum().float(), group).clamp(min=1)
    logits = head(look(images), (masks.shape[1], masks.shape[2]), group)
    loss = cross_entropy(logits, masks, ignore_index=IGNORE_INDEX, reduction="sum") / counted
    optimizer.zero_grad()
    loss.backward()
    sum_gradients(head, group)
    for part in optimizer.param_groups:
        part["lr"] = rate
    optimizer.step()
    return float(all_reduce_sum(loss.detach(), group))


def _channels(look: FrozenMaps, side: int) -> int:
    return look(torch.zeros(1, 3, side, side)).shape[1]
