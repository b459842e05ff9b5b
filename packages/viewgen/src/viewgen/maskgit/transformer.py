"""MaskGIT's bidirectional transformer: it predicts every code from the codes that are known (arXiv 2202.04200).

Shapes: B sequences of a batch, N their length (the label's token, then one per cell), L = N - 1 cells, V the
vocabulary (codes, then classes, then the mask), K the codes, E the width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

EPSILON = 1e-12  # of every layer norm, as in BERT


@dataclass(frozen=True, kw_only=True)
class TransformerSizes:
    """The shape of a transformer; the defaults are the official one's at 256 pixels.

    Attributes:
        codes: entries of the tokenizer's codebook, the first tokens of the vocabulary.
        classes: of the labels, the tokens after them.
        cells: of the image's grid.
        layers: of the network.
        width: of a token's vector.
        hidden: width inside the feed-forward part.
        heads: of the attention.
    """

    codes: int = 1024
    classes: int = 1000
    cells: int = 256
    layers: int = 24
    width: int = 768
    hidden: int = 3072
    heads: int = 16


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, EPSILON)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        """Every token attends to every token."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.out(mixed))
        return self.output_norm(x + self.down(gelu(self.up(x), approximate="tanh")))


class Transformer(nn.Module):
    """Tokens to logits over the vocabulary; the output layer shares the words' embedding."""

    label_free = False

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.codes, self.classes, self.cells = sizes.codes, sizes.classes, sizes.cells
        self.mask_id = sizes.codes + sizes.classes  # the official -1 wraps to this last row
        self.words = nn.Embedding(self.mask_id + 1, sizes.width)
        self.positions = nn.Embedding(sizes.cells + 1, sizes.width)
        self.embedding_norm = nn.LayerNorm(sizes.width, EPSILON)
        self.layers = nn.ModuleList(Layer(sizes.width, sizes.hidden, sizes.heads) for _ in range(sizes.layers))
        self.head, self.head_norm = nn.Linear(sizes.width, sizes.width), nn.LayerNorm(sizes.width, EPSILON)
        self.bias = nn.Parameter(torch.zeros(self.mask_id + 1))

    def forward(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B N V"]:
        """Logits of every position over the whole vocabulary, float32 whatever the weights are."""
        return self._logits(self._features(tokens), self.mask_id + 1)

    def code_logits(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B L K"]:
        """Logits of the cells over the codes only: all that decoding needs."""
        return self._logits(self._features(tokens)[:, 1:], self.codes)

    def _features(self, tokens: Tensor) -> Tensor:
        x = self.embedding_norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return x

    def _logits(self, x: Tensor, count: int) -> Tensor:
        x = self.head_norm(gelu(self.head(x), approximate="tanh"))
        return x.float() @ self.words.weight[:count].float().T + self.bias[:count].float()
