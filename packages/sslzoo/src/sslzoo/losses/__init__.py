"""Losses: tensors in, scalar out; every one takes per-sample weights."""

from sslzoo.losses.dino import dino
from sslzoo.losses.disentanglement import disentanglement
from sslzoo.losses.info_nce import info_nce
from sslzoo.losses.negative_cosine import negative_cosine

__all__ = ["dino", "disentanglement", "info_nce", "negative_cosine"]
