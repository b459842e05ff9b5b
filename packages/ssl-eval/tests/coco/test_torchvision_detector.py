"""What was brought nearer to detectron2, against slow and obvious forms of it."""

import pytest
import torch

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from ssl_eval.coco.masks import paste
from ssl_eval.coco.torchvision_detector import _AlignedPooler


def test_a_mask_is_spread_over_its_box():
    """A left half: its edge lies in the middle of the box, wherever that is between pixels."""
    half = torch.zeros(1, 28, 28)
    half[:, :, :14] = 1
    for box in ([3.0, 2.0, 13.0, 8.0], [3.4, 1.6, 12.4, 8.2], [0.0, 0.0, 20.0, 12.0]):
        whole = paste(half, torch.tensor([box]), (12, 20))[0]
        left, top, right, bottom = box
        for row in range(12):
            for column in range(20):
                inside = left < column + 0.5 < (left + right) / 2 and top < row + 0.5 < bottom
                edges = (abs(column + 0.5 - x) for x in (left, (left + right) / 2))
                if min(*edges, abs(row + 0.5 - top), abs(row + 0.5 - bottom)) > 0.3:
                    assert whole[row, column] == inside


def test_regions_are_cut_where_they_lie():
    """Maps that hold their own coordinates give a bin the mean of the coordinates in it."""
    maps = {}
    for name, stride in zip("0123", (4, 8, 16, 32), strict=True):
        middles = (torch.arange(512 // stride) + 0.5) * stride
        down, across = torch.meshgrid(middles, middles, indexing="ij")
        maps[name] = torch.stack([across, down, torch.full_like(down, stride)])[None]
    boxes = torch.tensor([[50.0, 60.0, 90.0, 120.0], [40.0, 48.0, 180.0, 160.0], [64.0, 96.0, 400.0, 448.0]])
    for box, cut, stride in zip(boxes, _AlignedPooler(7)(maps, [boxes], [(512, 512)]), (4, 8, 16), strict=True):
        steps = (torch.arange(7) + 0.5) / 7
        expected = box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])
        torch.testing.assert_close(cut[0], expected[0].expand(7, 7), atol=0.02 * stride, rtol=0)
        torch.testing.assert_close(cut[1], expected[1][:, None].expand(7, 7), atol=0.02 * stride, rtol=0)
        torch.testing.assert_close(cut[2], torch.full((7, 7), float(stride)))
