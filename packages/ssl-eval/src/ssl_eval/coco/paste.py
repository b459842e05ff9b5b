"""Small masks in their boxes to masks of the whole image.

Shapes: k masks, s x s their values, h x w pixels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample


def paste(
    probabilities: Float[Tensor, "k s s"], boxes: Float[Tensor, "k 4"], size: tuple[int, int], threshold: float = 0.5
) -> Bool[Tensor, "k h w"]:
    """Where a mask, spread bilinearly over its box, reaches the threshold; outside of it nothing.

    As in facebookresearch/detectron2@02b5c4e detectron2/layers/mask_ops.py: a pixel's middle is half a pixel in, and no
    box is rounded. One mask at a time, on the pixels around its box, so that memory does not grow with their number.

    Args:
        probabilities: from 0 to 1.
        boxes: left, top, right, bottom, in pixels, inside the image and of some area.
        size: height and width of the image.
        threshold: likewise from 0 to 1.
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
