"""The networks against the official code's numbers.

The tables hold mean, standard deviation and eight values evenly spread over the outputs of google-research/maskgit
@1db2359 (JAX 0.10, CPU, float32) and LTH14/mage@1becb14, with weights and inputs of the closed formula in conftest.py.
"""

import numpy as np
import pytest
import torch

from viewgen.maskgit import (
    MageSizes,
    MageTransformer,
    Tokenizer,
    TokenizerSizes,
    Transformer,
    TransformerSizes,
    load_mage,
    load_tokenizer,
    load_transformer,
)

LATENT = [0.06905, 0.56975, 0.21684, 0.29407, 0.67424, 0.55024, -0.15101, 0.93088, -0.17889, -0.32203]
IMAGE = [-0.18495, 0.59398, 0.26981, -1.22201, 0.46905, 1.24753, -0.16372, -1.27569, -0.5766, 0.04548]
LOGITS = [-0.27358, 1.68725, -0.74201, 0.87889, -0.33363, 2.23391, -1.63351, 1.82487, 1.31355, -1.68927]
CODES_FOUND = [
    [5, 12, 6, 14, 10, 21, 7, 11, 17, 21, 6, 14, 17, 17, 3, 10],
    [14, 6, 8, 18, 21, 8, 11, 21, 21, 2, 14, 10, 14, 16, 14, 11],
]
MAGE_LOGITS = [0.08421, 1.43355, 0.3249, 0.58098, -0.04592, 1.24192, 2.75812, 1.5517, -2.33929, -0.92187]
MAGE_LATENT = [-0.04342, 0.57787, -0.31329, -0.80147, 0.03532, 0.58238, 0.13322, 0.44551, -0.52231, -0.20163]
MAGE_IMAGE = [-0.17571, 0.5619, 0.07279, -0.29698, 0.9299, 0.07877, -0.5781, -0.94494, 0.10305, -0.15251]


def agrees(values: torch.Tensor, table: list[float]) -> bool:
    flat = values.reshape(-1).double().numpy()
    spread = flat[np.linspace(0, len(flat) - 1, 8).astype(int)]
    return bool(np.abs(np.array([flat.mean(), flat.std(), *spread]) - table).max() < 1e-4)


def last(values: torch.Tensor) -> torch.Tensor:
    """Channels last, as the tables of the JAX code."""
    return values.permute(0, 2, 3, 1)


@pytest.fixture
def images(formula) -> torch.Tensor:
    return torch.from_numpy(formula(1000, (2, 16, 16, 3), 0.5, 0.5)).permute(0, 3, 1, 2)


@pytest.fixture
def codes(formula) -> torch.Tensor:
    return torch.from_numpy(np.floor(formula(1001, (2, 16), 0.5, 0.5) * 24).astype(np.int64))


@torch.no_grad()
def test_tokenizer_is_the_official_one(official, images, codes):
    tokenizer = load_tokenizer(official.tokenizer)
    assert agrees(last(tokenizer.encoder(images)), LATENT)
    assert tokenizer.encode(images).flatten(1).tolist() == CODES_FOUND
    assert agrees(last(tokenizer.decode(codes.view(2, 4, 4))), IMAGE)


@torch.no_grad()
def test_transformer_is_the_official_one(official, codes):
    transformer = load_transformer(official.transformer, codes=official.codes)
    tokens = torch.cat([torch.full((2, 1), official.codes + 3), codes], 1)
    tokens[:, 3::2] = transformer.mask_id
    logits = transformer(tokens)
    assert agrees(logits, LOGITS)
    assert torch.allclose(transformer.code_logits(tokens), logits[:, 1:, : official.codes], atol=1e-6)


@torch.no_grad()
def test_mage_is_the_official_one(mage, formula):
    transformer = load_mage(mage.path, codes=mage.codes, heads=mage.heads)
    codes = torch.from_numpy(np.floor(formula(1001, (2, 256), 0.5, 0.5) * mage.codes).astype(np.int64))
    tokens = torch.cat([torch.full((2, 1), mage.codes + 76), codes], 1)
    tokens[:, 3::2] = transformer.mask_id
    assert agrees(transformer.code_logits(tokens), MAGE_LOGITS)
    tokenizer = load_tokenizer(mage.path)
    images = torch.from_numpy(formula(1000, (2, 3, 16, 16), 0.5, 0.5))
    assert agrees(tokenizer.encoder(images), MAGE_LATENT)
    assert agrees(tokenizer.decode(codes[:, :16].view(2, 4, 4)), MAGE_IMAGE)


def test_changed_channels_drop_the_input(official):
    """The official shortcut convolves the main path: with the main path silent, nothing is left of the input."""
    block = load_tokenizer(official.tokenizer).encoder.blocks[2]
    block.conv2.weight.zero_()
    assert block(torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))).abs().max() == 0


def test_codes_are_the_nearest(official, images):
    tokenizer = load_tokenizer(official.tokenizer)
    with torch.no_grad():
        vectors = last(tokenizer.encoder(images)).flatten(0, 2)
        nearest = [int(((tokenizer.codebook - vector) ** 2).sum(1).argmin()) for vector in vectors]
    assert tokenizer.encode(images).flatten().tolist() == nearest


def test_sizes_at_full_scale():
    with torch.device("meta"):
        tokenizer, transformer = Tokenizer(TokenizerSizes()), Transformer(TransformerSizes())
        large = Transformer(TransformerSizes(cells=1024))
        mage = MageTransformer(MageSizes())
    count = {net: sum(p.numel() for p in net.parameters()) for net in (tokenizer, transformer, large, mage)}
    assert count[tokenizer] == 54_515_587  # the official code's own count; GenCL says 227M for both
    assert count[transformer] == 172_457_193
    assert count[large] - count[transformer] == 768 * 768  # positions of 512 pixels
    assert transformer.mask_id == mage.mask_id == 2024
    assert tokenizer.patch == 16


def test_half_precision_weights_still_give_float32_logits(official, codes):
    transformer = load_transformer(official.transformer, codes=official.codes)
    tokens = torch.cat([torch.full((2, 1), official.codes), codes], 1)
    exact = transformer.code_logits(tokens)
    half = transformer.to(torch.bfloat16).code_logits(tokens)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.2
