"""Export backbones to torchvision, timm and detectron2."""

from sslzoo.export.detectron2 import detectron2_settings, to_detectron2
from sslzoo.export.torchvision_timm import timm_code, to_timm, to_torchvision, torchvision_code

__all__ = ["detectron2_settings", "timm_code", "to_detectron2", "to_timm", "to_torchvision", "torchvision_code"]
