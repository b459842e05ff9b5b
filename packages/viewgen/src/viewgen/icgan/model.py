"""The network of IC-GAN: a BigGAN without labels, conditioned on one image's features.

Casanova et al., https://arxiv.org/abs/2109.05070. The names of modules are those of the official checkpoints
(facebookresearch/ic_gan), whose spectral norms ``viewgen.icgan.checkpoint`` folds into the weights.

Shapes: B images; Z noise and D features of one image; Y their joint condition; C channels; H, W sides in pixels, and R
those of the finished image.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu, scaled_dot_product_attention

SEED_SIDE = 4  # pixels of the first map
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class ICGANConfig:
    """Configuration that determines the shapes of the network's tensors.

    Attributes:
        channels: channels of the 4 x 4 map and after each block, which doubles the resolution.
        attention: the blocks that self-attention follows.
        chunk: length of one of the equal parts of the noise: one makes the first map, and each block gets one.
        embedded: length of the embedded features.
        features: length of an image's features.
    """

    channels: tuple[int, ...]
    attention: tuple[int, ...]
    chunk: int
    embedded: int = 512
    features: int = 2048

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.channels) - 1

    @property
    def resolution(self) -> int:
        """Resolution of the images, in pixels."""
        return SEED_SIDE * 2**self.blocks

    @property
    def dim_z(self) -> int:
        """Length of the noise; the published configurations say 120, of which 7 parts of 17 = 119 are used."""
        return self.chunk * (self.blocks + 1)


class ConditionalNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * (1 + gain(y)) + bias(y), with the mean and variance of training."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "B C H W"], y: Float[Tensor, "B Y"]) -> Float[Tensor, "B C H W"]:
        """Normalize, scale and shift each channel."""
        return _normalize(x, self.stored_mean, self.stored_var, 1 + self.gain(y), self.bias(y))


class Block(nn.Module):
    """Residual block that doubles the resolution: two normalized convolutions and a 1 x 1 shortcut."""

    def __init__(self, inner: int, outer: int, condition: int) -> None:
        super().__init__()
        self.bn1 = ConditionalNorm(inner, condition)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.bn2 = ConditionalNorm(outer, condition)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.conv_sc = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Float[Tensor, "B C H W"], y: Float[Tensor, "B Y"]) -> Float[Tensor, "B C2 H2 W2"]:
        """Compute the block; the 1 x 1 shortcut runs before upsampling, with equal results at a quarter of the cost."""
        h = self.conv1(_double(relu(self.bn1(x, y))))
        h = self.conv2(relu(self.bn2(h, y)))
        return h + _double(self.conv_sc(x))


class Attention(nn.Module):
    """gamma * o(softmax(theta(x) phi(x)^T) g(x)) + x, unscaled, keys and values max-pooled by two."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.o = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"], y: Float[Tensor, "B Y"]) -> Float[Tensor, "B C H W"]:
        """Apply self-attention; the condition is not used."""
        query, key, value = self.theta(x), max_pool2d(self.phi(x), 2), max_pool2d(self.g(x), 2)
        query, key, value = (part.flatten(2).transpose(1, 2).unsqueeze(1) for part in (query, key, value))
        seen = scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)
        return x + self.gamma * self.o(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


class OutputNorm(nn.Module):
    """Batch normalization with the mean and variance of training, under the names of the checkpoints."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Compute (x - mean) / sqrt(var + eps) * gain + bias."""
        return _normalize(x, self.stored_mean, self.stored_var, self.gain, self.bias)


class ICGAN(nn.Module):
    """Generator from noise and the features of an image.

    Args:
        config: its sizes.
    """

    def __init__(self, config: ICGANConfig) -> None:
        super().__init__()
        self.config = config
        condition = config.embedded + config.chunk
        self.shared_feat = nn.Linear(config.features, config.embedded)
        self.linear = nn.Linear(config.chunk, config.channels[0] * SEED_SIDE**2)
        self.blocks = nn.ModuleList()
        for index, (inner, outer) in enumerate(zip(config.channels, config.channels[1:], strict=False)):
            parts: list[nn.Module] = [Block(inner, outer, condition)]
            if index in config.attention:
                parts.append(Attention(outer))
            self.blocks.append(nn.ModuleList(parts))
        last = config.channels[-1]
        self.output_layer = nn.Sequential(OutputNorm(last), nn.ReLU(), nn.Conv2d(last, 3, 3, padding=1))

    def forward(self, z: Float[Tensor, "B Z"], features: Float[Tensor, "B D"]) -> Float[Tensor, "B 3 R R"]:
        """Generate images in [-1, 1].

        Args:
            z: noise, standard normal or truncated.
            features: features of the source images, normalized to unit length.
        """
        first, *others = z.split(self.config.chunk, dim=1)
        embedded = self.shared_feat(features)
        x = self.linear(first).unflatten(1, (-1, SEED_SIDE, SEED_SIDE))
        for block, part in zip(self.blocks, others, strict=True):
            assert isinstance(block, nn.ModuleList)
            y = torch.cat([embedded, part], dim=1)
            for layer in block:
                x = layer(x, y)
        return torch.tanh(self.output_layer(x))


def _double(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
    return interpolate(x, scale_factor=2.0, mode="nearest")


def _normalize(
    x: Float[Tensor, "B C H W"],
    mean: Float[Tensor, " C"],
    var: Float[Tensor, " C"],
    gain: Float[Tensor, "... C"],
    bias: Float[Tensor, "... C"],
) -> Float[Tensor, "B C H W"]:
    """Compute (x - mean) / sqrt(var + eps) * gain + bias, as one multiplication and addition per value."""
    scale = gain * torch.rsqrt(var + BATCH_NORM_EPS)
    shift = bias - mean * scale
    return torch.addcmul(shift[..., None, None], x, scale[..., None, None])
