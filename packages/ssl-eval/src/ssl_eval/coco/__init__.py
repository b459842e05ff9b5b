"""Detection and instance segmentation on COCO: Mask R-CNN trained from a backbone, and its average precision."""

from ssl_eval.coco.annotations import CocoInstances, load_instances
from ssl_eval.coco.average_precision import EVALUATORS, METRICS, average_precision
from ssl_eval.coco.config import SCHEDULES, VARIANTS, DetectionConfig, detection_config
from ssl_eval.coco.detectron2_detector import Detectron2Backbone
from ssl_eval.coco.inference import Detector, detect
from ssl_eval.coco.training import BACKENDS, train_mask_rcnn

__all__ = [
    "BACKENDS",
    "EVALUATORS",
    "METRICS",
    "SCHEDULES",
    "VARIANTS",
    "CocoInstances",
    "DetectionConfig",
    "Detector",
    "Detectron2Backbone",
    "average_precision",
    "detect",
    "detection_config",
    "load_instances",
    "train_mask_rcnn",
]
