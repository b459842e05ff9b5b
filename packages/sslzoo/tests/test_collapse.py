"""Effective rank against the singular values themselves, and what is and is not a number."""

import pytest
import torch

from sslzoo import all_finite, effective_rank, first_nonfinite
from sslzoo.training.throughput import peak_flops_by_name


def by_singular_values(features: torch.Tensor) -> float:
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (20, 20)])
def test_the_rank_is_that_of_the_singular_values(shape, seeded):
    features = seeded.normal(0, *shape) * torch.linspace(0.01, 1, shape[1])
    assert float(effective_rank(features)) == pytest.approx(by_singular_values(features), rel=1e-5)


def test_the_rank_counts_equal_directions_and_knows_no_scale_or_rotation(seeded):
    directions = torch.linalg.qr(seeded.normal(0, 16, 16))[0]
    features = torch.cat([directions[:5], -directions[:5]])
    assert float(effective_rank(features)) == pytest.approx(5, rel=1e-4)
    turned = 7 * features @ torch.linalg.qr(seeded.normal(1, 16, 16))[0]
    assert float(effective_rank(turned)) == pytest.approx(5, rel=1e-4)


@pytest.mark.parametrize("features", [torch.ones(8, 4), torch.zeros(8, 4)])
def test_the_rank_of_features_all_alike_is_one(features):
    assert float(effective_rank(features)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_no_number_is_found_and_named(value, build):
    method = build("dino")
    assert all_finite(method.state_dict()[name] for name in dict(method.named_parameters()))
    assert first_nonfinite(method) is None
    method.student.backbone.layer2[0].conv1.weight.data[1, 0, 2, 2] = value
    assert not all_finite(method.parameters())
    assert first_nonfinite(method) == "student.backbone.layer2.0.conv1.weight"


def test_devices_are_known_by_their_own_names():
    """torch.cuda.get_device_name of each; a consumer card is not known."""
    named = {
        "NVIDIA H100 80GB HBM3": 989.4e12,
        "NVIDIA H100 PCIe": 756.5e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "Tesla V100-SXM2-32GB": 125e12,
        "Tesla V100-PCIE-16GB": 112e12,
        "NVIDIA A10G": 70e12,
        "NVIDIA L40S": 362.05e12,
        "NVIDIA GeForce RTX 4090": None,
    }
    assert {name: peak_flops_by_name(name) for name in named} == named
