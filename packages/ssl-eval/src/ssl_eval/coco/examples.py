"""An image with its objects as a detector gets it: resized by its short edge, perhaps mirrored.

Shapes: m objects, h x w pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from genviews_core.images import UnreadableImage, read_rgb
from ssl_eval.coco.annotations import CocoInstances
from ssl_eval.coco.segmentation import Segmentation, move


@dataclass(frozen=True, eq=False)
class Example:
    """One image.

    Attributes:
        image: its pixels in RGB.
        boxes: left, top, right, bottom, in these pixels.
        labels: classes, counted from 0.
        segmentations: one an object, in these pixels.
        original: height and width of the file.
        row: in the data set.
    """

    image: UInt8[Tensor, "3 h w"]
    boxes: Float[Tensor, "m 4"]
    labels: Int[Tensor, " m"]
    segmentations: tuple[Segmentation, ...]
    original: tuple[int, int]
    row: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]


def read_example(instances: CocoInstances, row: int, short_edge: int, long_edge: int, *, flip: bool = False) -> Example:
    """Decode, resize with PIL's antialiased bilinear filter and mirror, as detectron2 does.

    Raises:
        ValueError: the image is broken or of another size than told; one line that names file and id.
    """
    objects = instances.objects(row)
    height, width = (int(pixels) for pixels in instances.sizes[row])
    image = _decode(instances, row, objects.file_name)
    tall, wide = resized(height, width, short_edge, long_edge)
    pixels = np.asarray(image.resize((wide, tall), Image.Resampling.BILINEAR))
    boxes = objects.boxes * np.array([wide / width, tall / height] * 2, dtype=np.float32)
    if flip:
        pixels = pixels[:, ::-1]
        boxes = np.stack([wide - boxes[:, 2], boxes[:, 1], wide - boxes[:, 0], boxes[:, 3]], axis=1)
    moved = (move(each, (tall, wide), flip, (height, width)) for each in objects.segmentations)
    return Example(
        image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(objects.labels),
        segmentations=tuple(moved),
        original=(height, width),
        row=row,
    )


def resized(height: int, width: int, short_edge: int, long_edge: int) -> tuple[int, int]:
    """The short edge as asked, unless the long one would be too long.

    facebookresearch/detectron2@02b5c4e detectron2/data/transforms/augmentation_impl.py ResizeShortestEdge.
    """
    scale = short_edge / min(height, width)
    scale = min(scale, long_edge / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _decode(instances: CocoInstances, row: int, file_name: str) -> Image.Image:
    path = instances.images / file_name
    height, width = (int(pixels) for pixels in instances.sizes[row])
    try:
        image = read_rgb(path)
    except UnreadableImage as error:
        raise ValueError(f"{path}, image {instances.ids[row]}, cannot be decoded ({error.reason})") from None
    if image.size != (width, height):
        told = f"{image.width} x {image.height} pixels, {instances.annotations} says {width} x {height}"
        raise ValueError(f"{path}, image {instances.ids[row]}, is of {told}")
    return image
