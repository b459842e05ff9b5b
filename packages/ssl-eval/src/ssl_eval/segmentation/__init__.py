"""Semantic segmentation by a linear head on a frozen backbone's last map.

The folders of PASCAL VOC are read by `ssl_eval.segmentation.voc` and `ssl_eval.segmentation.data`, which need
genviews-ssl-eval[images].
"""

from ssl_eval.feature_maps import FeatureMapExtractor, FrozenMaps
from ssl_eval.segmentation.inference import segment, segmentation_confusion
from ssl_eval.segmentation.mean_iou import class_ious, confusion_matrix, mean_iou, pixel_accuracy
from ssl_eval.segmentation.training import SegmentationHead, SegmentationProtocol, SyncBatchNorm, train_segmentation

__all__ = [
    "FeatureMapExtractor",
    "FrozenMaps",
    "SegmentationHead",
    "SegmentationProtocol",
    "SyncBatchNorm",
    "class_ious",
    "confusion_matrix",
    "mean_iou",
    "pixel_accuracy",
    "segment",
    "segmentation_confusion",
    "train_segmentation",
]
