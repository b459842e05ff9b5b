"""torchvision's Mask R-CNN, configured as closely to detectron2's as its constructors allow.

As in detectron2 (facebookresearch/detectron2@02b5c4e): the inputs, 1,000 proposals after suppression, ROI align with a
half-pixel offset and as many samples as a bin has pixels, the initial weights of the heads, the pasting of masks.
Remaining differences: smooth L1 up to 1/9 instead of L1; anchors rounded to whole pixels; the targets of the mask head
are cropped from rasterized masks instead of rasterized from cropped polygons; boxes are also regressed for the
background class, unused.

Shapes: b images, r regions, k detections, m instances, h x w pixels.
"""

import copy
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, clip_boxes_to_image, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ssl_eval.coco.config import DetectionConfig
from ssl_eval.coco.inference import Detections
from ssl_eval.coco.masks import draw, paste
from ssl_eval.coco.sampler import Example
from ssl_eval.features import evaluating


class TorchvisionDetector:
    """torchvision's Mask R-CNN, on any ResNet with torchvision's names.

    Args:
        backbone: the backbone; a copy is trained.
        classes: number of classes.
        recipe: variant, mean and std.

    Raises:
        ValueError: the backbone has no feature maps of strides 4 to 32, or the variant is c4.
    """

    def __init__(self, backbone: nn.Module, classes: int, recipe: DetectionConfig):
        if recipe.variant == "c4":
            raise ValueError(
                "expected the variant fpn with the torchvision backend, got c4; use the detectron2 backend, or fpn"
            )
        channels, features = recipe.channels, recipe.features
        heads: dict[str, Any] = {"mask_head": MaskRCNNHeads(channels, [channels] * 4, 1)}
        heads["box_head"] = TwoMLPHead(channels * 7 * 7, features)
        if recipe.variant == "fpn-heads":
            heads["mask_head"] = MaskRCNNHeads(channels, [channels] * 4, 1, nn.BatchNorm2d)
            heads["box_head"] = FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [features], nn.BatchNorm2d)
        network = MaskRCNN(
            _Pyramid(backbone, channels),
            rpn_pre_nms_top_n_train=2000,
            rpn_pre_nms_top_n_test=1000,
            rpn_post_nms_top_n_train=1000,  # torchvision: 2,000
            rpn_post_nms_top_n_test=1000,
            box_batch_size_per_image=recipe.rois_per_image,
            box_roi_pool=_AlignedPooler(7),
            box_predictor=FastRCNNPredictor(features, classes + 1),
            mask_roi_pool=_AlignedPooler(14),
            mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
            **heads,
        )
        network.transform = _Padding(recipe.mean, recipe.std)  # pyright: ignore[reportAttributeAccessIssue]
        _initialise(network.roi_heads)
        self.network: nn.Module = network

    @staticmethod
    def to_input(example: Example) -> dict[str, Any]:
        """Return pixels and targets; classes are counted from 1."""
        height, width = example.size
        drawn = [draw(each, height, width) for each in example.segmentations]
        masks = torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, height, width, dtype=torch.uint8)
        target = {"boxes": example.boxes, "labels": example.labels + 1, "masks": masks}
        return {"image": example.image, "target": target, "original": example.original}

    def losses(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the losses of proposals, boxes, classes and masks."""
        device = next(self.network.parameters()).device
        targets = [{name: tensor.to(device) for name, tensor in each["target"].items()} for each in inputs]
        return self.network([each["image"].to(device) for each in inputs], targets)

    def detect(self, inputs: list[dict[str, Any]]) -> list[Detections]:
        """Return at most 100 detections per image."""
        device = next(self.network.parameters()).device
        outputs = self.network([each["image"].to(device) for each in inputs])
        return [_in_file(each["image"], each["original"], seen) for each, seen in zip(inputs, outputs, strict=True)]


def _in_file(image: Tensor, original: tuple[int, int], seen: dict[str, Tensor]) -> Detections:
    (height, width), (tall, wide) = image.shape[-2:], original
    scale = seen["boxes"].new_tensor([wide / width, tall / height] * 2)
    boxes = clip_boxes_to_image(seen["boxes"].float() * scale, original)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes = boxes[kept]
    return Detections(
        boxes=boxes,
        scores=seen["scores"][kept].float(),
        labels=seen["labels"][kept] - 1,
        masks=paste(seen["masks"][kept, 0].float(), boxes, original),
    )


class _Pyramid(nn.Module):
    """Feature pyramid of five levels, with batch norm after each convolution."""

    def __init__(self, backbone: nn.Module, channels: int):
        super().__init__()
        self.body, widths = stage_feature_maps(backbone)
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool(), nn.BatchNorm2d)
        self.out_channels = channels

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> OrderedDict[str, Tensor]:
        return self.fpn(self.body(images))


class _Padding(nn.Module):
    """Replaces torchvision's transform: images are already resized, and detections stay in their pixels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def forward(self, images: list[Tensor], targets: list | None = None) -> tuple[ImageList, list | None]:
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        high, wide = (-(-max(size[axis] for size in sizes) // STRIDES[-1]) * STRIDES[-1] for axis in (0, 1))
        batch = torch.zeros(len(images), 3, high, wide, device=images[0].device)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = (image - self._mean.to(image.device)) / self._std.to(
                image.device
            )
        return ImageList(batch, sizes), targets

    def postprocess(self, detections: list, sizes: list, originals: list) -> list:
        return detections


class _AlignedPooler(MultiScaleRoIAlign):
    """detectron2's ROIAlignV2 with sampling ratio 0 (detectron2/modeling/poolers.py).

    A region is pooled from the level of stride 4, 8, 16 or 32 by its size: 224 x 224 pixels from stride 16 (FPN,
    https://arxiv.org/abs/1612.03144, equation 1).
    """

    def __init__(self, size: int):
        super().__init__(["0", "1", "2", "3"], size, sampling_ratio=0)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list) -> Float[Tensor, "r c s s"]:
        every = torch.cat(boxes)
        image = torch.cat([every.new_full((len(part), 1), number) for number, part in enumerate(boxes)])
        regions = torch.cat([image, every], dim=1)
        sides = ((every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])).sqrt()
        levels = (4 + torch.log2(sides / 224 + 1e-8)).floor().clamp(2, 5) - 2
        pooled = x["0"].new_zeros(len(every), x["0"].shape[1], *self.output_size)
        for level, (name, stride) in enumerate(zip(self.featmap_names, STRIDES, strict=True)):
            mine = torch.where(levels == level)[0]
            cut = roi_align(x[name], regions[mine], self.output_size, 1 / stride, self.sampling_ratio, aligned=True)
            pooled[mine] = cut.to(pooled.dtype)
        return pooled


def _initialise(heads: nn.Module) -> None:
    """Initialize the heads as in detectron2: modeling/roi_heads/{box_head,fast_rcnn,mask_head}.py."""
    for part in heads.box_head.modules():  # pyright: ignore
        if isinstance(part, nn.Linear):
            nn.init.kaiming_uniform_(part.weight, a=1)
            nn.init.zeros_(part.bias)
    predictors: Any = heads.box_predictor, heads.mask_predictor
    nn.init.normal_(predictors[0].cls_score.weight, std=0.01)
    nn.init.normal_(predictors[0].bbox_pred.weight, std=0.001)
    nn.init.normal_(predictors[1].mask_fcn_logits.weight, std=0.001)
    for part in (*predictors[0].children(), predictors[1].conv5_mask, predictors[1].mask_fcn_logits):
        nn.init.zeros_(part.bias)


STAGES = ("layer1", "layer2", "layer3", "layer4")
STRIDES = (4, 8, 16, 32)


def stage_feature_maps(backbone: nn.Module) -> tuple[nn.Module, list[int]]:
    """Return a trainable copy of the backbone that returns the feature maps "0" to "3", and their channels.

    Raises:
        ValueError: it has no such stages, its forward pass computes them differently, or their strides are not 4, 8,
            16 and 32, as with CIFAR stems.
    """
    if not all(isinstance(getattr(backbone, name, None), nn.Module) for name in STAGES):
        raise ValueError(f"expected a ResNet with the stages layer1 to layer4, got {type(backbone).__name__}")
    body = copy.deepcopy(backbone).requires_grad_(True).cpu().float()
    kept: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(body, name).register_forward_hook(lambda _, __, maps, name=name: kept.update({name: maps}))
        for name in STAGES
    ]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    getter = IntermediateLayerGetter(body, {name: str(number) for number, name in enumerate(STAGES)})
    with torch.no_grad(), evaluating(body):
        body(images)
        expected = dict(kept)
        outputs = list(getter(images).values())
    for hook in hooks:
        hook.remove()
    same = [torch.allclose(expected[name], maps, rtol=1e-4) for name, maps in zip(STAGES, outputs, strict=True)]
    if not all(same):
        raise ValueError(f"expected a backbone that applies its layers in order, got {type(backbone).__name__}")
    strides = tuple(64 // maps.shape[-1] for maps in outputs)
    if strides != STRIDES:
        raise ValueError(f"expected maps of strides {STRIDES}, got {strides}; use a backbone without cifar_stem")
    return getter, [maps.shape[1] for maps in outputs]
