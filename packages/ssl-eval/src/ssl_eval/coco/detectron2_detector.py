"""detectron2's Mask R-CNN. detectron2 is imported only when a detector is created.

Shapes: k detected objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_eval.coco.config import DetectionConfig
from ssl_eval.coco.inference import Detections
from ssl_eval.coco.masks import draw
from ssl_eval.coco.sampler import Example

STAGES = ["res2", "res3", "res4", "res5"]
LEVELS = ["p2", "p3", "p4", "p5"]
COMMON = {
    "VERSION": 2,
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.WEIGHTS": "",
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    # The caller synchronizes batch norms.
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "INPUT.FORMAT": "RGB",
}
PYRAMID = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": STAGES,
    "MODEL.FPN.IN_FEATURES": STAGES,
    "MODEL.FPN.NORM": "BN",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.IN_FEATURES": [*LEVELS, "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
}
"""facebookresearch/detectron2@02b5c4e configs/Base-RCNN-FPN.yaml."""
HEADS = {
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.NORM": "BN",
    "MODEL.ROI_MASK_HEAD.NORM": "BN",
}
"""WXinlong/DenseCL@b64bbb6 benchmarks/detection/configs/R_50_FPN_1x.yaml."""
C4 = {"MODEL.ROI_HEADS.NAME": "Res5ROIHeads", "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000}
"""facebookresearch/moco@132aea9 detection/configs/Base-RCNN-C4-BN.yaml; detectron2@02b5c4e configs/Base-RCNN-C4.yaml"""
SETTINGS = {"fpn": PYRAMID, "fpn-heads": PYRAMID | HEADS, "c4": C4}
INSTALL = (
    "detectron2 is not installed: pip install 'setuptools<81', then pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2'; or choose the torchvision backend"
)


@dataclass(frozen=True, eq=False)
class Detectron2Backbone:
    """A ResNet in detectron2's format.

    Attributes:
        settings: detectron2 settings of its architecture, such as MODEL.RESNETS.DEPTH.
        weights: by the parameter names of detectron2's ResNet: stem.conv1.weight, res2.0.conv1.norm.bias.
    """

    settings: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


class Detectron2Detector:
    """detectron2's Mask R-CNN.

    Args:
        backbone: settings and weights.
        classes: number of classes.
        recipe: variant, mean and std.

    Raises:
        ValueError: detectron2 is not installed, or weights are missing or unexpected.
    """

    def __init__(self, backbone: Detectron2Backbone, classes: int, recipe: DetectionConfig):
        try:
            from detectron2.config import get_cfg  # pyright: ignore[reportMissingImports]
            from detectron2.modeling import build_model  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(INSTALL if "detectron2" in str(error) else f"{INSTALL} ({error})") from None
        if recipe.variant == "c4" and backbone.settings["MODEL.RESNETS.DEPTH"] < 50:
            raise ValueError(
                "expected a ResNet of 50 or more layers for the variant c4, whose head has bottleneck blocks, "
                f"got {backbone.settings['MODEL.RESNETS.DEPTH']} layers"
            )
        config = get_cfg()
        own = {
            "MODEL.ROI_HEADS.NUM_CLASSES": classes,
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": recipe.rois_per_image,
            "MODEL.FPN.OUT_CHANNELS": recipe.channels,
            "MODEL.ROI_BOX_HEAD.CONV_DIM": recipe.channels,
            "MODEL.ROI_BOX_HEAD.FC_DIM": recipe.features,
            "MODEL.ROI_MASK_HEAD.CONV_DIM": recipe.channels,
            "MODEL.PIXEL_MEAN": list(recipe.mean),
            "MODEL.PIXEL_STD": list(recipe.std),
        }
        for setting in (COMMON | SETTINGS[recipe.variant] | own | dict(backbone.settings)).items():
            config.merge_from_list(list(setting))
        self.network: nn.Module = build_model(config)
        _fill(self.network, backbone.weights)
        if recipe.variant == "c4":  # moco@132aea9 detection/train_net.py Res5ROIHeadsExtraNorm
            width = 8 * backbone.settings["MODEL.RESNETS.RES2_OUT_CHANNELS"]
            self.network.roi_heads.res5.add_module("norm", nn.BatchNorm2d(width))  # pyright: ignore

    @staticmethod
    def to_input(example: Example) -> dict[str, Any]:
        """Return the output of detectron2's DatasetMapper."""
        from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks  # pyright: ignore[reportMissingImports]

        instances = Instances(example.size)
        instances.gt_boxes = Boxes(example.boxes)
        instances.gt_classes = example.labels
        polygons = [each for each in example.segmentations if isinstance(each, list)]
        if len(polygons) == len(example.segmentations):
            instances.gt_masks = PolygonMasks(polygons)
        else:
            masks = np.stack([draw(each, *example.size) for each in example.segmentations])
            instances.gt_masks = BitMasks(torch.from_numpy(masks).bool())
        height, width = example.original
        return {"image": example.image, "instances": instances, "height": height, "width": width}

    def losses(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the losses of proposals, boxes, classes and masks."""
        from detectron2.utils.events import EventStorage  # pyright: ignore[reportMissingImports]

        with EventStorage():
            return self.network(inputs)

    def detect(self, inputs: list[dict[str, Any]]) -> list[Detections]:
        """Return at most 100 detections per image."""
        outputs = [each["instances"] for each in self.network(inputs)]
        return [
            Detections(
                boxes=each.pred_boxes.tensor, scores=each.scores, labels=each.pred_classes, masks=each.pred_masks
            )
            for each in outputs
        ]


def _fill(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Load all weights into the ResNet of the FPN or C4 detector; none may be missing or unexpected."""
    prefixes = ("backbone.bottom_up.", "backbone.", "roi_heads.")
    state = network.state_dict()
    loaded = {}
    for name, array in weights.items():
        keys = [prefix + name for prefix in prefixes if prefix + name in state]
        if len(keys) != 1:
            raise ValueError(
                f"unexpected weight {name} of the backbone: its settings do not match detectron2's network"
            )
        key = keys[0]
        loaded[key] = torch.from_numpy(np.asarray(array))
        if loaded[key].shape != state[key].shape:
            raise ValueError(f"expected the shape {list(state[key].shape)} of {name}, got {list(array.shape)}")
    backbone = ("stem.", *(f"{stage}." for stage in STAGES))
    needed = (key for key in state if not key.endswith("num_batches_tracked"))
    missing = [key for key in needed if key not in loaded and _without_prefix(key, prefixes).startswith(backbone)]
    if missing:
        raise ValueError(f"missing weights of the backbone for detectron2's {missing[0]}: its settings do not match")
    network.load_state_dict(loaded, strict=False)


def _without_prefix(key: str, prefixes: tuple[str, ...]) -> str:
    return next((key.removeprefix(prefix) for prefix in prefixes if key.startswith(prefix)), "")
