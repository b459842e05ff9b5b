"""MaskGIT: paint the masked cells of an image's code grid (https://arxiv.org/abs/2202.04200), and MAGE's like."""

from viewgen.maskgit.checkpoint import load_mage, load_predictor, load_tokenizer, load_transformer, save
from viewgen.maskgit.composite import composite
from viewgen.maskgit.decoding import DecodingNoise, decode, decode_with, draw_noise, masked_counts
from viewgen.maskgit.generator import MaskGITGenerator
from viewgen.maskgit.mage import MageSizes, MageTransformer
from viewgen.maskgit.masks import GENCL_SHARE, MaskRule, ring_kept
from viewgen.maskgit.tokenizer import Tokenizer, TokenizerSizes
from viewgen.maskgit.transformer import Transformer, TransformerSizes

__all__ = [
    "GENCL_SHARE",
    "DecodingNoise",
    "MageSizes",
    "MageTransformer",
    "MaskGITGenerator",
    "MaskRule",
    "Tokenizer",
    "TokenizerSizes",
    "Transformer",
    "TransformerSizes",
    "composite",
    "decode",
    "decode_with",
    "draw_noise",
    "load_mage",
    "load_predictor",
    "load_tokenizer",
    "load_transformer",
    "masked_counts",
    "ring_kept",
    "save",
]
