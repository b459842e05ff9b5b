"""IP-Adapter: views from an image's CLIP embedding by Stable Diffusion or SDXL (https://arxiv.org/abs/2308.06721)."""

from viewgen.ip_adapter.generator import IPAdapterGenerator
from viewgen.ip_adapter.weights import AdapterWeights, attach_adapter, read_adapter

__all__ = ["AdapterWeights", "IPAdapterGenerator", "attach_adapter", "read_adapter"]
