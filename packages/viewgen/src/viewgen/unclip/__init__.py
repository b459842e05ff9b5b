"""Stable unCLIP: views from an image's noised CLIP embedding (GenView, https://arxiv.org/abs/2403.12003)."""

from viewgen.unclip.checkpoint import load_checkpoint
from viewgen.unclip.generator import UnCLIPGenerator

__all__ = ["UnCLIPGenerator", "load_checkpoint"]
