"""The linear head of segmentation: batch norm and a 1 x 1 convolution, on maps of a frozen network.

Shapes: b images, d channels, c classes, r x s places of a map, h x w pixels.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate

from ssl_eval.processes import sum_over
from ssl_eval.softmax_regression import INITIAL_DEVIATION, stream


class SharedBatchNorm(nn.Module):
    """Batch norm of inputs that nothing is learned through, over the images of all processes.

    As torch.nn.BatchNorm2d, whose constants these are; the statistics need no gradient, so that any backend serves.
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
        """In training by the statistics of this batch, else by those of the training."""
        mean, variance = self._measure(maps.detach(), group) if self.training else (self.mean, self.variance)
        return batch_norm(maps, mean, variance, self.weight, self.bias, training=False, eps=self.epsilon)

    @torch.no_grad()
    def _measure(self, maps: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
        """Of all processes' maps; the running ones are moved towards them."""
        count = maps.new_tensor([maps.numel() / maps.shape[1]])
        total, count = sum_over(group, torch.cat([maps.sum(dim=(0, 2, 3)), count])).split([maps.shape[1], 1])
        mean = total / count
        variance = sum_over(group, (maps - mean[:, None, None]).square().sum(dim=(0, 2, 3))) / count
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance * count / (count - 1), self.momentum)
        return mean, variance


class SegmentationHead(nn.Module):
    """Maps to the logits of every pixel.

    As facebookresearch/dinov2@b8931f7 dinov2/eval/segmentation/models/decode_heads/linear_head.py (BNHead), whose 1 x 1
    convolution starts at normal weights of deviation 0.01 and no bias (mmsegmentation's BaseDecodeHead).

    Args:
        channels: d.
        num_classes: c.
        seed: of the initial weights.
    """

    def __init__(self, channels: int, num_classes: int, *, seed: int):
        super().__init__()
        self.norm, self.classify = SharedBatchNorm(channels), nn.Conv2d(channels, num_classes, 1)
        assert self.classify.bias is not None
        with torch.no_grad():
            first = torch.randn(self.classify.weight.shape, generator=stream(seed, "segmentation head"))
            self.classify.weight.copy_(first * INITIAL_DEVIATION)
            self.classify.bias.zero_()

    def forward(
        self, maps: Float[Tensor, "b d r s"], size: tuple[int, int], group: dist.ProcessGroup | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Logits of each place of the map, bilinearly enlarged to (h, w) = `size`."""
        return interpolate(self.classify(self.norm(maps, group)), size=size, mode="bilinear", align_corners=False)
