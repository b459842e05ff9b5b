"""Statistics over batches are those of all their values."""

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from ssl_eval.coco.precise_bn import update_bn_statistics


def test_statistics_are_those_of_all_values():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).train()
    unused = nn.BatchNorm2d(4)
    network.add_module("unused", nn.Sequential())
    network.unused.add_module("norm", unused)
    batches = [torch.randn(count, 3, side, 5) * count for count, side in ((2, 4), (3, 7), (1, 2))]
    update_bn_statistics(network, lambda batch: network[:4](batch), batches)
    values = torch.cat([network[0](batch).transpose(0, 1).flatten(1) for batch in batches], dim=1).detach()
    torch.testing.assert_close(network[1].running_mean, values.mean(1))
    torch.testing.assert_close(network[1].running_var, values.var(1, correction=0))
    assert network[1].momentum == 0.1 and torch.equal(unused.running_mean, torch.zeros(4))
