"""Detection and instance segmentation on COCO: Mask R-CNN trained from a backbone, and its average precision."""

from ssl_eval.coco.annotations import CocoInstances, open_instances
from ssl_eval.coco.average_precision import EVALUATORS, METRICS, average_precision
from ssl_eval.coco.detections import detect
from ssl_eval.coco.detector import Detector
from ssl_eval.coco.detectron2_detector import Detectron2Backbone
from ssl_eval.coco.recipe import SCHEDULES, VARIANTS, DetectionRecipe, detection_recipe
from ssl_eval.coco.training import BACKENDS, train_mask_rcnn

__all__ = [
    "BACKENDS",
    "EVALUATORS",
    "METRICS",
    "SCHEDULES",
    "VARIANTS",
    "CocoInstances",
    "DetectionRecipe",
    "Detector",
    "Detectron2Backbone",
    "average_precision",
    "detect",
    "detection_recipe",
    "open_instances",
    "train_mask_rcnn",
]
