"""The transformers that predict masked codes: MaskGIT's, trained with labels, and MAGE's, trained without.

MaskGIT: https://arxiv.org/abs/2202.04200; MAGE: https://arxiv.org/abs/2211.09117, whose modules have the names of the
official PyTorch checkpoints.

Shapes: B sequences of a batch, N their length (the label's token, then one per cell), L = N - 1 cells, V the
vocabulary (codes, then classes, then the mask), K codes, E and E2 widths.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

EPSILON = 1e-12  # of every layer norm, as in BERT


@dataclass(frozen=True, kw_only=True)
class TransformerSizes:
    """Sizes of a transformer; the defaults are the official one's at 256 pixels.

    Attributes:
        codes: entries of the tokenizer's codebook, the first tokens of the vocabulary.
        classes: number of labels, which are the tokens after the codes.
        cells: cells of the image's grid.
        layers: number of transformer layers.
        width: width of a token.
        hidden: width inside the feed-forward part.
        heads: attention heads.
    """

    codes: int = 1024
    classes: int = 1000
    cells: int = 256
    layers: int = 24
    width: int = 768
    hidden: int = 3072
    heads: int = 16


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalized."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, EPSILON)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.output_norm = nn.LayerNorm(width, EPSILON)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        """Apply attention, every token to every token, and the feed-forward part."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.out(mixed))
        return self.output_norm(x + self.down(gelu(self.up(x), approximate="tanh")))


class Transformer(nn.Module):
    """Tokens to logits over the vocabulary; the output layer is tied to the token embedding."""

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
        """Compute logits of every position over the whole vocabulary, float32 for any dtype of the weights."""
        return self._logits(self._features(tokens), self.mask_id + 1)

    def code_logits(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B L K"]:
        """Compute logits of the cells over the codes only, as decoding needs."""
        return self._logits(self._features(tokens)[:, 1:], self.codes)

    def _features(self, tokens: Tensor) -> Tensor:
        x = self.embedding_norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return x

    def _logits(self, x: Tensor, count: int) -> Tensor:
        x = self.head_norm(gelu(self.head(x), approximate="tanh"))
        return x.float() @ self.words.weight[:count].float().T + self.bias[:count].float()


BLOCK_EPSILON, HEAD_EPSILON = 1e-6, 1e-5
FAKE_CLASS = 76  # token 1024 + 76 = 1100 stands for "no label" in every sequence of the training
HEADS = {768: (12, 16), 1024: (16, 16)}  # of encoder and decoder by width: ViT-B and ViT-L


@dataclass(frozen=True, kw_only=True)
class MageSizes:
    """Sizes of a MAGE; the defaults are ViT-B's.

    Attributes:
        codes: entries of the tokenizer's codebook.
        classes: tokens after them; all but one are idle.
        cells: cells of the image's grid.
        width: width of a token in the encoder.
        decoder_width: width of a token in the decoder.
        depth: layers of the encoder.
        decoder_depth: layers of the decoder.
        heads: attention heads of the encoder and of the decoder.
    """

    codes: int = 1024
    classes: int = 1000
    cells: int = 256
    width: int = 768
    decoder_width: int = 768
    depth: int = 12
    decoder_depth: int = 8
    heads: tuple[int, int] = (12, 16)


class Block(nn.Module):
    """Pre-norm vision transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, BLOCK_EPSILON) for _ in range(2))
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        """Apply attention, every token to every token, and the feed-forward part."""
        query, key, value = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.attn["proj"](scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))


class Embedding(nn.Module):
    """Normalized token and position embeddings."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.LayerNorm = nn.LayerNorm(width, BLOCK_EPSILON)

    def forward(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B N E"]:
        """Return the normalized sum of token and position embeddings."""
        return self.LayerNorm(self.word_embeddings(tokens) + self.position_embeddings.weight[: tokens.shape[1]])


class Head(nn.Module):
    """Decoder vectors to logits over the codes, with the tied token embedding."""

    def __init__(self, narrow: int, width: int, vocabulary: int) -> None:
        super().__init__()
        self.fc, self.ln = nn.Linear(narrow, width), nn.LayerNorm(width, HEAD_EPSILON)
        self.bias = nn.Parameter(torch.zeros(1, 1, vocabulary))

    def forward(self, x: Float[Tensor, "B L E"], words: Float[Tensor, "K E2"]) -> Float[Tensor, "B L K"]:
        """Compute float32 logits for any dtype of the weights."""
        return self.ln(gelu(self.fc(x))).float() @ words.float().T + self.bias[0, :, : len(words)].float()


class MageTransformer(nn.Module):
    """Tokens to logits over the codes, as ``decode`` asks of a transformer."""

    label_free = True

    def __init__(self, sizes: MageSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.codes, self.classes, self.cells = sizes.codes, sizes.classes, sizes.cells
        self.mask_id = sizes.codes + sizes.classes
        vocabulary, width, narrow = self.mask_id + 1, sizes.width, sizes.decoder_width
        self.token_emb = Embedding(vocabulary, sizes.cells + 1, width)
        self.blocks = nn.ModuleList(Block(width, sizes.heads[0]) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width, BLOCK_EPSILON)
        self.decoder_embed = nn.Linear(width, narrow)
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, sizes.cells + 1, narrow))
        self.decoder_blocks = nn.ModuleList(Block(narrow, sizes.heads[1]) for _ in range(sizes.decoder_depth))
        self.decoder_norm = nn.LayerNorm(narrow, BLOCK_EPSILON)
        self.mlm_layer = Head(narrow, width, vocabulary)

    def code_logits(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B L K"]:
        """Compute logits of the cells over the codes, float32 for any dtype of the weights.

        What the encoder says at masked cells is replaced by what it says at the label's token.
        """
        x = self.token_emb(tokens)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        masked = (tokens == self.mask_id)[..., None]
        x = torch.where(masked, x[:, :1], x) + self.decoder_pos_embed_learned
        for block in self.decoder_blocks:
            x = block(x)
        return self.mlm_layer(self.decoder_norm(x)[:, 1:], self.token_emb.word_embeddings.weight[: self.codes])
