"""Backbones in the forms of torchvision, timm and detectron2."""

from sslzoo.export.detectron2_form import detectron2_settings, to_detectron2
from sslzoo.export.timm_form import timm_network, to_timm
from sslzoo.export.torchvision_form import to_torchvision, torchvision_network

__all__ = ["detectron2_settings", "timm_network", "to_detectron2", "to_timm", "to_torchvision", "torchvision_network"]
