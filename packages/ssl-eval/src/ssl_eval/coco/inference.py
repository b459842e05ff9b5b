"""The interface of a detector, and its detections on a test set in COCO's result format.

Shapes: k detections, h x w pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genviews_core.distributed import all_gather_object, rank, world_size
from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.config import DetectionConfig
from ssl_eval.coco.masks import encode
from ssl_eval.coco.sampler import Example, SampleRequest, read_batches
from ssl_eval.distributed import raise_on_all_ranks
from ssl_eval.features import evaluating


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections in one image.

    Attributes:
        boxes: left, top, right, bottom, in pixels of the file.
        scores: confidence from 0 to 1.
        labels: classes, counted from 0.
        masks: masks of the file's size.
    """

    boxes: Float[Tensor, "k 4"]
    scores: Float[Tensor, " k"]
    labels: Int[Tensor, " k"]
    masks: Bool[Tensor, "k h w"]


@runtime_checkable
class Detector(Protocol):
    """Interface of a Mask R-CNN.

    Attributes:
        network: the module that is trained.
    """

    network: nn.Module

    @staticmethod
    def to_input(example: Example) -> Any:
        """Convert an example to the input of `losses` and `detect`; called in the worker process."""
        ...

    def losses(self, inputs: list[Any]) -> dict[str, Tensor]:
        """Return the losses, in training mode; their sum is minimized."""
        ...

    def detect(self, inputs: list[Any]) -> list[Detections]:
        """Return detections, in evaluation mode."""
        ...


Detection = dict[str, Any]
"""image_id, category_id, score, bbox (left, top, width, height) and segmentation (run lengths)."""


@torch.no_grad()
def detect(
    detector: Detector,
    test: CocoInstances,
    *,
    recipe: DetectionConfig,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    workers: int = 0,
    on_image: Callable[[int, int], object] = lambda done, images: None,
) -> list[Detection]:
    """Return the detections in all images, on every process; images are processed one by one, without padding.

    Args:
        detector: the result of train_mask_rcnn.
        test: the images; their annotations are not used.
        recipe: image sizes.
        device: device of the computation.
        amp: dtype of autocast; None for none.
        group: processes that share the images.
        workers: worker processes that read images, for each process.
        on_image: called with the numbers of finished and of all images of this process.

    Raises:
        ValueError: an image cannot be read.
    """
    rows = range(rank(group), len(test), world_size(group))
    requests = [[SampleRequest(row, recipe.short_edge_test)] for row in rows]
    ids = [category for category, _ in test.categories]
    detections: list[Detection] = []
    precision = torch.autocast(torch.device(device).type, dtype=amp, enabled=amp is not None)
    with raise_on_all_ranks(group), evaluating(detector.network), precision:
        batches = read_batches(test, requests, recipe, detector.to_input, workers)
        for done, (row, batch) in enumerate(zip(rows, batches, strict=True), 1):
            (seen,) = detector.detect(batch)
            detections += _to_coco(seen, int(test.ids[row]), ids)
            on_image(done, len(rows))
    return [each for part in all_gather_object(detections, group) for each in part]


def _to_coco(detections: Detections, image: int, categories: list[int]) -> Iterator[Detection]:
    corners = detections.boxes.double().cpu().numpy()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    several = zip(
        boxes, detections.scores.tolist(), detections.labels.tolist(), detections.masks.cpu().numpy(), strict=True
    )
    for box, score, label, mask in several:
        outline = encode(mask.astype(np.uint8))
        outline["counts"] = outline["counts"].decode()
        yield {
            "image_id": image,
            "category_id": categories[label],
            "score": score,
            "bbox": box,
            "segmentation": outline,
        }
