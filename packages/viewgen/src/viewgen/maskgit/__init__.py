"""MaskGIT (https://arxiv.org/abs/2202.04200) and MAGE: generate the masked cells of an image's code grid."""

from viewgen.maskgit.checkpoint import load_mage, load_predictor, load_tokenizer, load_transformer, save
from viewgen.maskgit.decoding import DecodingNoise, decode, decode_with, draw_noise, masked_counts
from viewgen.maskgit.generator import MaskGITGenerator
from viewgen.maskgit.masks import GENCL_FRACTION, MaskRule, center_mask, composite
from viewgen.maskgit.tokenizer import Tokenizer, TokenizerSizes
from viewgen.maskgit.transformers import MageSizes, MageTransformer, Transformer, TransformerSizes

__all__ = [
    "GENCL_FRACTION",
    "DecodingNoise",
    "MageSizes",
    "MageTransformer",
    "MaskGITGenerator",
    "MaskRule",
    "Tokenizer",
    "TokenizerSizes",
    "Transformer",
    "TransformerSizes",
    "center_mask",
    "composite",
    "decode",
    "decode_with",
    "draw_noise",
    "load_mage",
    "load_predictor",
    "load_tokenizer",
    "load_transformer",
    "masked_counts",
    "save",
]
