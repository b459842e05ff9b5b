"""What a trained detector finds in a test set, as COCO's result format tells it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.detector import Detector, Found
from ssl_eval.coco.reading import Request, read_all
from ssl_eval.coco.recipe import DetectionRecipe
from ssl_eval.coco.segmentation import encode
from ssl_eval.features import evaluating
from ssl_eval.processes import failing_together, gather_over, rank_in, size_of

Detection = dict[str, Any]
"""image_id, category_id, score, bbox (left, top, width, height) and segmentation (run lengths)."""


@torch.no_grad()
def detect(
    detector: Detector,
    test: CocoInstances,
    *,
    recipe: DetectionRecipe,
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    workers: int = 0,
    on_image: Callable[[int, int], object] = lambda done, images: None,
) -> list[Detection]:
    """All objects found in all images, on every process. One image at a time, so that none is padded to another.

    Args:
        detector: as train_mask_rcnn gives it.
        test: the images; their annotations are not looked at.
        recipe: for the sizes.
        device: where to compute.
        amp: autocast to this type.
        group: processes that share the images.
        workers: processes that read images, for each of those.
        on_image: called with how many images of this process are done, and of how many.

    Raises:
        ValueError: an image is broken.
    """
    rows = range(rank_in(group), len(test), size_of(group))
    requests = [[Request(row, recipe.short_edge_test)] for row in rows]
    ids = [category for category, _ in test.categories]
    found: list[Detection] = []
    precision = torch.autocast(torch.device(device).type, dtype=amp, enabled=amp is not None)
    with failing_together(group), evaluating(detector.network), precision:
        batches = read_all(test, requests, recipe, detector.to_input, workers)
        for done, (row, batch) in enumerate(zip(rows, batches, strict=True), 1):
            (seen,) = detector.detect(batch)
            found += _told(seen, int(test.ids[row]), ids)
            on_image(done, len(rows))
    return [each for part in gather_over(group, found) for each in part]


def _told(found: Found, image: int, categories: list[int]) -> Iterator[Detection]:
    corners = found.boxes.double().cpu().numpy()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    several = zip(boxes, found.scores.tolist(), found.labels.tolist(), found.masks.cpu().numpy(), strict=True)
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
