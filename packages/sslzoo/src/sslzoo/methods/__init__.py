"""Methods: `method(views, weights)` returns a dict with "loss"; `method.after_step(progress)`; `method.backbone`."""

from sslzoo.methods.barlow_twins import BarlowTwins
from sslzoo.methods.byol import BYOL
from sslzoo.methods.dino import DINO
from sslzoo.methods.gen_dino import GenDINO, Interpolated
from sslzoo.methods.method import Method, Weights
from sslzoo.methods.moco_v2 import MoCoV2
from sslzoo.methods.moco_v3 import MoCoV3
from sslzoo.methods.simclr import SimCLR
from sslzoo.methods.simsiam import SimSiam
from sslzoo.methods.swav import SwAV
from sslzoo.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "DINO",
    "BarlowTwins",
    "GenDINO",
    "Interpolated",
    "Method",
    "MoCoV2",
    "MoCoV3",
    "SimCLR",
    "SimSiam",
    "SwAV",
    "VICReg",
    "Weights",
]
