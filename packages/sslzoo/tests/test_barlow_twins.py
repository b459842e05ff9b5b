"""Barlow Twins, beside facebookresearch/barlowtwins@8e8d284 main.py run on the same weights and images."""

import pytest
import torch

from sslzoo import build_optimizer, create_backbone
from sslzoo.losses import barlow_twins
from sslzoo.losses.barlow_twins import cross_correlation
from sslzoo.methods import BarlowTwins


def small(dtype, seeded):
    method = BarlowTwins(create_backbone("resnet10", cifar_stem=True, width=8), projector=(24, 24, 16)).to(dtype)
    seeded.fill(method, dtype)
    return method


def test_three_training_steps_are_the_official_ones(seeded, first_steps):
    # BarlowTwins there with this backbone, LARS(weight_decay=0.01), rates of its warm-up, one process
    method = small(torch.float64, seeded)
    optimizer = build_optimizer("lars", method, lr=0.0, weight_decay=0.01, bias_lr_factor=0.0048 / 0.2)
    losses, gradients, backbone, projector = first_steps(method, optimizer, [0.1, 0.12, 0.14])
    assert losses == pytest.approx([18.497599487222676, 26.02094759009685, 11.715602110863129], abs=1e-8)
    assert gradients == pytest.approx([611.0185996219251, 593.4013932860722, 423.5288778865519], rel=1e-8)
    assert backbone == pytest.approx(30.27842282952373, rel=1e-10)
    assert projector == pytest.approx(10.193976714553015, rel=1e-10)


def test_the_loss_in_float32_is_the_official_one(seeded):
    loss = small(torch.float32, seeded)(seeded.views(2, 32, 0))["loss"]
    assert loss.item() == pytest.approx(19.842012405395508, rel=1e-5)


def test_the_correlation_is_pearsons(seeded):
    first, second = seeded.normal(1, 9, 4), seeded.normal(2, 9, 4)
    expected = torch.corrcoef(torch.cat([first, second], dim=1).T)[:4, 4:]
    torch.testing.assert_close(cross_correlation(first, second), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_counts_samples(seeded):
    first, second = seeded.normal(1, 4, 3, dtype=torch.float64), seeded.normal(2, 4, 3, dtype=torch.float64)
    weights = torch.tensor([3.0, 0.0, 1.0, 2.0])
    repeated = torch.tensor([0, 0, 0, 2, 3, 3])
    expected = barlow_twins(first[repeated], second[repeated])
    torch.testing.assert_close(barlow_twins(first, second, weights=weights), expected)
    torch.testing.assert_close(barlow_twins(first, second, weights=10 * weights), expected)
    assert torch.equal(barlow_twins(first, second), barlow_twins(first, second, weights=torch.ones(4)))


def test_equal_views_correlate_fully_whatever_the_weights(seeded):
    points, weights = 5 * seeded.normal(1, 8, 3, dtype=torch.float64), torch.linspace(0, 4, 8)
    torch.testing.assert_close(cross_correlation(points, points, weights).diagonal(), torch.ones(3).double(), rtol=1e-5,
                               atol=0)  # fmt: skip


def test_weights_of_zero_ask_nothing(seeded):
    first, second = seeded.normal(1, 6, 4).requires_grad_(), seeded.normal(2, 6, 4)
    loss = barlow_twins(first, second, weights=torch.zeros(6))
    loss.backward()
    assert loss == 4
    assert not first.grad.any()


def test_half_precision_is_computed_in_float32(seeded):
    first, second = seeded.normal(1, 6, 4).bfloat16(), seeded.normal(2, 6, 4).bfloat16()
    exact = barlow_twins(first.double(), second.double()).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert barlow_twins(first, second).item() == pytest.approx(exact, rel=1e-5)


def test_mistakes_are_one_line(seeded, build):
    method = build("barlow_twins")
    with pytest.raises(ValueError, match=r"^expected at least 2 images over all ranks for Barlow Twins, got 1; .*$"):
        method(seeded.views(2, 16, 0, batch=1))
    with pytest.raises(ValueError, match=r"^expected at least 2 images over all ranks for Barlow Twins"):
        barlow_twins(torch.ones(1, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^expected 2 views of each image for Barlow Twins, got 1; .*$"):
        method(seeded.views(1, 16, 0))


def test_the_projector_is_the_published_one():
    class Flat(torch.nn.Flatten):
        num_features = 8

    with torch.device("meta"):
        method = BarlowTwins(Flat())
    shapes = {name: tuple(p.shape) for name, p in method.encoder.head.named_parameters()}
    assert [shapes[f"{i}.weight"] for i in (0, 3, 6)] == [(8192, 8), (8192, 8192), (8192, 8192)]
    assert {name for name in shapes if name.endswith("bias")} == {"1.bias", "4.bias"}
