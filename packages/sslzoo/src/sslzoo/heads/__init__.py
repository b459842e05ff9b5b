"""What comes after a backbone."""

from sslzoo.heads.dino import DINOHead
from sslzoo.heads.encoder import Encoder
from sslzoo.heads.mlp import mlp, moco_head

__all__ = ["DINOHead", "Encoder", "mlp", "moco_head"]
