"""IC-GAN (https://arxiv.org/abs/2109.05070), GenCL's noise-based generator: views that share an image's features."""

from viewgen.icgan.checkpoint import load_icgan
from viewgen.icgan.features import FeatureExtractor, load_resnet50
from viewgen.icgan.generator import ICGANGenerator
from viewgen.icgan.model import ICGAN, ICGANConfig

__all__ = ["ICGAN", "FeatureExtractor", "ICGANConfig", "ICGANGenerator", "load_icgan", "load_resnet50"]
