"""Losses: tensors in, scalar out; all take per-sample weights."""

from sslzoo.losses.barlow_twins import barlow_twins
from sslzoo.losses.dino import dino
from sslzoo.losses.disentanglement import disentanglement
from sslzoo.losses.info_nce import info_nce
from sslzoo.losses.negative_cosine import negative_cosine
from sslzoo.losses.nt_xent import nt_xent
from sslzoo.losses.swav import swav
from sslzoo.losses.vicreg import vicreg

__all__ = ["barlow_twins", "dino", "disentanglement", "info_nce", "negative_cosine", "nt_xent", "swav", "vicreg"]
