"""Predict whole images with sliding windows.

Shapes: b images, c classes, h x w pixels.
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genviews_core.distributed import all_reduce_sum
from ssl_eval.distributed import raise_on_all_ranks
from ssl_eval.feature_maps import FrozenMaps
from ssl_eval.features import evaluating
from ssl_eval.segmentation.mean_iou import confusion_matrix
from ssl_eval.segmentation.training import SegmentationHead, SegmentationProtocol


@torch.no_grad()
def segment(
    network: Callable[[Tensor], Tensor],
    head: SegmentationHead,
    image: Float[Tensor, "3 h w"],
    *,
    window: int,
    stride: int,
) -> Float[Tensor, "c h w"]:
    """Compute the logits of every pixel, averaged over the windows that contain it.

    Windows are `stride` apart, the last ones at the image's border, as in mmsegmentation's slide_inference.
    """
    height, width = image.shape[1:]
    total, seen = None, image.new_zeros(height, width)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            part = image[:, top : top + window, left : left + window]
            logits = head(network(part[None]), (part.shape[1], part.shape[2]))[0]
            total = logits.new_zeros(len(logits), height, width) if total is None else total
            total[:, top : top + window, left : left + window] += logits
            seen[top : top + window, left : left + window] += 1
    assert total is not None
    return total / seen


@torch.no_grad()
def segmentation_confusion(
    network: nn.Module,
    head: SegmentationHead,
    test: Iterable[tuple[Tensor, Tensor]],
    *,
    protocol: SegmentationProtocol,
    num_classes: int,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
) -> Int[Tensor, "c c"]:
    """Compute the confusion matrix over the pixels of all test images; see `mean_iou`.

    Args:
        network: the network used in training.
        head: the result of `train_segmentation`.
        test: (image [3, h, w] as the network wants it, mask [H, W] of the image's own size); with a group, each image
            on one process only.
        protocol: size and stride of the windows.
        num_classes: number of classes c.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share the images; each gets the result of all.
    """
    look = FrozenMaps(network.to(device), torch.device(device), amp)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)
    with raise_on_all_ranks(group), evaluating(network), evaluating(head):
        for image, mask in test:
            logits = segment(look, head, image.to(device), window=protocol.crop, stride=protocol.stride)
            size = (mask.shape[0], mask.shape[1])
            guesses = interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(dim=0)
            counts += confusion_matrix(guesses, mask.to(device), num_classes)
    return all_reduce_sum(counts, group).cpu()


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of the windows along one axis."""
    if length <= window:
        return [0]
    return [min(start, length - window) for start in range(0, length - window + stride, stride)]
