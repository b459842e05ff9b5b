"""MaskGIT's VQGAN: images to a grid of codes and back (https://arxiv.org/abs/2202.04200).

Shapes: B images of a batch, H, W their sides in pixels, h, w the sides of the code grid, D the length of a code's
vector, C, C2 channels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

GROUPS, EPSILON = 32, 1e-6  # of every group norm: flax's defaults, which the official code keeps


@dataclass(frozen=True, kw_only=True)
class TokenizerSizes:
    """Sizes of a tokenizer; the defaults are the official one's.

    Attributes:
        stem: channels after the encoder's first convolution.
        widths: channels of each level, from the finest to the coarsest.
        blocks: residual blocks per level, and in the middle.
        codes: entries of the codebook.
        dim: length of an entry.
    """

    stem: int = 128
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    blocks: int = 2
    codes: int = 1024
    dim: int = 256


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, EPSILON)


class ResidualBlock(nn.Module):
    """Two norm-swish-convolution steps and a shortcut.

    Where the channels change, the official shortcut convolves the output of the two steps instead of the block's
    input, so that the input itself is dropped; weights trained so need the same here.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(out, out, 1, bias=False) if channels != out else None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        """Return the sum of both paths."""
        main = self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))
        return main + (x if self.shortcut is None else self.shortcut(main))


class Encoder(nn.Module):
    """Pixels to one vector per cell of the grid, with 2 x 2 average pooling between the levels."""

    def __init__(self, sizes: TokenizerSizes) -> None:
        super().__init__()
        self.per_level, self.levels = sizes.blocks, len(sizes.widths)
        outs = [width for width in (*sizes.widths, sizes.widths[-1]) for _ in range(sizes.blocks)]
        self.conv_in = nn.Conv2d(3, sizes.stem, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(map(ResidualBlock, [sizes.stem, *outs], outs))
        self.norm_out = _norm(outs[-1])
        self.conv_out = nn.Conv2d(outs[-1], sizes.dim, 1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """Compute vectors that are not yet quantized."""
        x = self.conv_in(images)
        for index, block in enumerate(self.blocks):
            level, place = divmod(index, self.per_level)
            if place == 0 and 0 < level < self.levels:
                x = avg_pool2d(x, 2)
            x = block(x)
        return self.conv_out(silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Vectors of the grid to pixels, with nearest upsampling and a convolution between the levels."""

    def __init__(self, sizes: TokenizerSizes) -> None:
        super().__init__()
        self.per_level, self.levels = sizes.blocks, len(sizes.widths)
        widths = sizes.widths[::-1]
        outs = [width for width in (widths[0], *widths) for _ in range(sizes.blocks)]
        self.conv_in = nn.Conv2d(sizes.dim, outs[0], 3, padding=1)
        self.blocks = nn.ModuleList(map(ResidualBlock, [outs[0], *outs], outs))
        self.upsample = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in widths[:-1])
        self.norm_out = _norm(outs[-1])
        self.conv_out = nn.Conv2d(outs[-1], 3, 3, padding=1)

    def forward(self, vectors: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 3 H W"]:
        """Compute pixels, where [0, 1] is black to white; values slightly outside may occur."""
        x = self.conv_in(vectors)
        for index, block in enumerate(self.blocks):
            level, place = divmod(index, self.per_level)  # level 0 is the middle, 1 the coarsest
            if place == 0 and level > 1:
                x = self.upsample[level - 2](interpolate(x, scale_factor=2.0, mode="nearest"))
            x = block(x)
        return self.conv_out(silu(self.norm_out(x)))


class Tokenizer(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, sizes: TokenizerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch = 2 ** (len(sizes.widths) - 1)  # pixels along a cell's side
        self.encoder, self.decoder = Encoder(sizes), Decoder(sizes)
        self.codebook = nn.Parameter(torch.empty(sizes.codes, sizes.dim))

    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Int[Tensor, "B h w"]:
        """Return the nearest code of every cell by squared distance.

        Args:
            images: images in [0, 1], sides a multiple of ``patch``.
        """
        vectors = self.encoder(images).permute(0, 2, 3, 1)
        flat = vectors.flatten(0, 2).float()
        book = self.codebook.float()
        distances = flat.square().sum(1, keepdim=True) - 2 * flat @ book.T + book.square().sum(1)
        return distances.argmin(1).view(vectors.shape[:3])

    def decode(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode a grid of codes to an image, float32, not clipped."""
        vectors = self.codebook[codes].permute(0, 3, 1, 2)
        dtype = self.decoder.conv_in.weight.dtype
        return self.decoder(vectors.to(dtype).contiguous(memory_format=torch.channels_last)).float()
