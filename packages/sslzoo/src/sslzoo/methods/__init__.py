"""Methods: `method(views, weights)` gives a dict with "loss"; `method.after_step(progress)`; `method.backbone`."""

from sslzoo.methods.dino import DINO
from sslzoo.methods.gen_dino import GenDINO, Interpolated
from sslzoo.methods.method import Method, Weights
from sslzoo.methods.moco_v2 import MoCoV2
from sslzoo.methods.simsiam import SimSiam

__all__ = ["DINO", "GenDINO", "Interpolated", "Method", "MoCoV2", "SimSiam", "Weights"]
