"""Semantic segmentation by a linear head on a frozen backbone's last map.

The folders of PASCAL VOC are read by `ssl_eval.segmentation.voc` and `ssl_eval.segmentation.images`, which need
genviews-ssl-eval[images].
"""

from ssl_eval.segmentation.head import SegmentationHead, SharedBatchNorm
from ssl_eval.segmentation.last_map import FrozenMaps, LastMap
from ssl_eval.segmentation.mean_iou import class_ious, count_pixels, mean_iou, pixel_accuracy
from ssl_eval.segmentation.sliding_windows import count_segmented, segment
from ssl_eval.segmentation.training import SegmentationProtocol, train_segmentation

__all__ = [
    "FrozenMaps",
    "LastMap",
    "SegmentationHead",
    "SegmentationProtocol",
    "SharedBatchNorm",
    "class_ious",
    "count_pixels",
    "count_segmented",
    "mean_iou",
    "pixel_accuracy",
    "segment",
    "train_segmentation",
]
