"""Instance masks: polygons, run-length encodings, and masks predicted within boxes.

Shapes: k masks, s x s their values, h x w pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.functional import grid_sample

Polygons = list[np.ndarray]
"""Each x, y, x, y, ... of at least three points."""
RunLengths = dict[str, Any]
"""size and counts, in the format of pycocotools."""
Segmentation = Polygons | RunLengths
masks: Any = coco_mask  # whose stubs know no dictionaries


def read_segmentation(entry: object, height: int, width: int) -> Segmentation:
    """Validate and convert the segmentation of one object.

    Polygons of fewer than three points are dropped, as in detectron2 (facebookresearch/detectron2@02b5c4e
    detectron2/data/datasets/coco.py load_coco_json).

    Raises:
        ValueError: it is neither polygons nor run lengths, or invalid.
    """
    if isinstance(entry, Mapping):
        return _run_lengths(entry, height, width)
    if not isinstance(entry, list) or not entry:
        raise ValueError(f"expected a segmentation of polygons or run lengths, got {str(entry)[:40]}")
    polygons = [np.asarray(each, dtype=np.float64) for each in entry]
    for polygon in polygons:
        if polygon.ndim != 1 or polygon.size % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"expected polygons of pairs of finite numbers, got {str(polygon.tolist())[:40]}")
    return [polygon for polygon in polygons if polygon.size >= 6]


def move(segmentation: Segmentation, size: tuple[int, int], flip: bool, original: tuple[int, int]) -> Segmentation:
    """Return the segmentation after its image was resized and optionally mirrored.

    Args:
        segmentation: segmentation in the original image.
        size: new height and width.
        flip: whether the image was mirrored horizontally.
        original: original height and width.
    """
    (height, width), (tall, wide) = size, original
    if isinstance(segmentation, dict):
        resized = Image.fromarray(masks.decode(segmentation)).resize((width, height), Image.Resampling.NEAREST)
        return encode(np.asarray(resized)[:, ::-1] if flip else np.asarray(resized))
    moved = []
    for polygon in segmentation:
        points = polygon.reshape(-1, 2) * (width / wide, height / tall)
        if flip:
            points[:, 0] = width - points[:, 0]
        moved.append(points.reshape(-1))
    return moved


def draw(segmentation: Segmentation, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Rasterize a segmentation: 1 inside, 0 outside."""
    if isinstance(segmentation, dict):
        return masks.decode(segmentation)
    pieces = masks.frPyObjects([polygon.tolist() for polygon in segmentation], height, width)
    return masks.decode(masks.merge(pieces))


def encode(pixels: UInt8[np.ndarray, "h w"]) -> RunLengths:
    """Run-length encode a mask of 0 and 1."""
    return masks.encode(np.asfortranarray(pixels))


def _run_lengths(entry: Mapping[str, Any], height: int, width: int) -> RunLengths:
    size, counts = entry.get("size"), entry.get("counts")
    if not isinstance(size, list) or size != [height, width]:
        raise ValueError(f"expected a mask of the image's size [{height}, {width}], got {size}")
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts) and sum(counts) == height * width
        if not whole:
            raise ValueError(f"expected run lengths of {height * width} pixels, got others")
        return masks.frPyObjects({"size": size, "counts": counts}, height, width)
    if not isinstance(counts, str) or _pixels(counts) != height * width:
        raise ValueError(f"expected run lengths of {height * width} pixels, got others")
    return {"size": size, "counts": counts.encode()}


def _pixels(text: str) -> int:
    """Return the number of pixels of packed run lengths; -1 if they are invalid.

    Five bits per character from 48 on, a sixth as continuation flag, sign extension at the end; from the third count
    on, differences to the one before the last (cocodataset/cocoapi common/maskApi.c rleFrString).
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        if counts[-1] < 0:
            return -1
        value = shift = 0
    return sum(counts) if shift == 0 else -1


def paste(
    probabilities: Float[Tensor, "k s s"], boxes: Float[Tensor, "k 4"], size: tuple[int, int], threshold: float = 0.5
) -> Bool[Tensor, "k h w"]:
    """Resize masks bilinearly to their boxes and threshold them; zero outside the boxes.

    As in facebookresearch/detectron2@02b5c4e detectron2/layers/mask_ops.py: pixel centers are at half pixels, and boxes
    are not rounded. Masks are pasted one by one, on the pixels around their boxes, to bound the memory.

    Args:
        probabilities: probabilities in [0, 1].
        boxes: left, top, right, bottom, in pixels, inside the image and not empty.
        size: height and width of the image.
        threshold: probability threshold.
    """
    height, width = size
    whole = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for mask, box, place in zip(probabilities, boxes, whole, strict=True):
        left, top, right, bottom = box.tolist()
        rows = slice(max(int(top) - 1, 0), min(int(bottom) + 2, height))
        columns = slice(max(int(left) - 1, 0), min(int(right) + 2, width))
        down = (torch.arange(rows.start, rows.stop, device=box.device) + 0.5 - top) / (bottom - top) * 2 - 1
        across = (torch.arange(columns.start, columns.stop, device=box.device) + 0.5 - left) / (right - left) * 2 - 1
        grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)
        place[rows, columns] = grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] >= threshold
    return whole
