"""A diffusion transformer (DiT, https://arxiv.org/abs/2212.09748) that takes one embedding as its condition.

Timestep and embedding modulate every block by adaptive normalisation whose gates begin at zero (adaLN-zero). Blocks
have RMS norms, normalised queries and keys (https://arxiv.org/abs/2302.05442), two-dimensional rotary positions
(https://arxiv.org/abs/2104.09864, the angles of a row and of a column), and SwiGLU (https://arxiv.org/abs/2002.05202).

Shapes: B images of a batch, N tokens of an image, E the width, C, H, W the channels and sides of the folded input.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

FREQUENCIES = 64  # of the timestep; each gives a sine and a cosine
ROTARY_BASE = 100.0  # sides are some tens of tokens, not thousands


class EmbeddingDiT(ModelMixin, ConfigMixin):
    """Tokens are single pixels of the folded input; ``Denoiser`` folds patches into channels before.

    Args:
        channels: channels of input and output.
        side: side of the square input.
        width: width of the tokens and of the condition.
        depth: blocks.
        heads: attention heads.
    """

    @register_to_config
    def __init__(self, *, channels: int, side: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.input = nn.Linear(channels, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, side**2, width))
        self.frequencies = Timesteps(2 * FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.output = zeroed(nn.Linear(width, channels))
        cos, sin = rotary_tables(side, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(
        self, sample: Float[Tensor, "B C H W"], timestep: Int[Tensor, " B"], condition: Float[Tensor, "B E"]
    ) -> Transformer2DModelOutput:
        """Predict noise, velocity or clean image; zero before training."""
        frequencies = self.frequencies(timestep).to(sample.dtype)
        modulator = silu(self.time(frequencies) + condition)
        tokens = self.input(sample.flatten(2).transpose(1, 2)) + self.position
        for block in self.blocks:
            tokens = block(tokens, modulator, self.cos, self.sin)
        shift, scale = self.modulation(modulator).unsqueeze(1).chunk(2, dim=-1)
        predicted = self.output(modulated(tokens, shift, scale))
        return Transformer2DModelOutput(sample=predicted.transpose(1, 2).reshape(sample.shape))


class Block(nn.Module):
    """Attention and SwiGLU, each with shift, scale and gate from the condition.

    Args:
        width: width of the tokens and of the condition.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, hidden = heads, width * 8 // 3 // 32 * 32
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(width // heads))
        self.key_scale = nn.Parameter(torch.ones(width // heads))
        self.attended = nn.Linear(width, width, bias=False)
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "B N E"],
        modulator: Float[Tensor, "B E"],
        cos: Float[Tensor, "N F"],
        sin: Float[Tensor, "N F"],
    ) -> Float[Tensor, "B N E"]:
        """Add what attention and the feed-forward layer find."""
        shift, scale, gate, shift_ff, scale_ff, gate_ff = self.modulation(modulator).unsqueeze(1).chunk(6, dim=-1)
        tokens = tokens + gate * self._attend(modulated(tokens, shift, scale), cos, sin)
        gates, values = self.gate_and_value(modulated(tokens, shift_ff, scale_ff)).chunk(2, dim=-1)
        return tokens + gate_ff * self.down(silu(gates) * values)

    def _attend(
        self, tokens: Float[Tensor, "B N E"], cos: Float[Tensor, "N F"], sin: Float[Tensor, "N F"]
    ) -> Float[Tensor, "B N E"]:
        split = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        query = rotated(scaled_rms_norm(query, self.query_scale), cos, sin)
        key = rotated(scaled_rms_norm(key, self.key_scale), cos, sin)
        return self.attended(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return normalised tokens, scaled by ``1 + scale`` and shifted."""
    return rms_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift


def scaled_rms_norm(values: Tensor, scale: Tensor) -> Tensor:
    """Return the RMS norm over the last dimension in the values' precision.

    torch's fused norm takes no float32 weight beside bfloat16 values, as autocast gives them; so the weight is apart.
    """
    return rms_norm(values, values.shape[-1:]) * scale.to(values.dtype)


def rotated(
    values: Float[Tensor, "B heads N D"], cos: Float[Tensor, "N F"], sin: Float[Tensor, "N F"]
) -> Float[Tensor, "B heads N D"]:
    """Return queries or keys rotated by their positions' angles, F = D / 2 of them."""
    cos, sin = cos.to(values.dtype), sin.to(values.dtype)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def rotary_tables(side: int, head_dim: int) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N F"]]:
    """Return cosines and sines of each token's angles: head_dim / 4 by its row, as many by its column."""
    count = head_dim // 4
    frequencies = ROTARY_BASE ** -(torch.arange(count) / count)
    places = torch.arange(side, dtype=torch.float32)
    row, column = torch.meshgrid(places, places, indexing="ij")
    angles = torch.cat([row.reshape(-1, 1) * frequencies, column.reshape(-1, 1) * frequencies], dim=1)
    return angles.cos(), angles.sin()


def zeroed(layer: nn.Linear) -> Any:
    """Return the layer with weight and bias of zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
