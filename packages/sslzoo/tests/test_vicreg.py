"""VICReg, beside facebookresearch/vicreg@4e12602 main_vicreg.py run on the same weights and images."""

import pytest
import torch

from sslzoo import build_optimizer, create_backbone
from sslzoo.losses import vicreg
from sslzoo.methods import VICReg


def small(dtype, seeded):
    method = VICReg(create_backbone("resnet10", cifar_stem=True, width=8), expander=(24, 24, 16)).to(dtype)
    seeded.fill(method, dtype)
    return method


def test_three_training_steps_are_the_official_ones(seeded, first_steps):
    # VICReg there with this backbone, LARS(weight_decay=0.01), rates of its warm-up, one process
    method = small(torch.float64, seeded)
    optimizer = build_optimizer("lars", method, lr=0.0, weight_decay=0.01)
    losses, gradients, backbone, expander = first_steps(method, optimizer, [0.01, 0.012, 0.014])
    assert losses == pytest.approx([22.024637528210572, 21.7778942212155, 22.30674116143233], abs=1e-8)
    assert gradients == pytest.approx([43.194353200243874, 42.59130215573578, 38.290769814299395], rel=1e-8)
    assert backbone == pytest.approx(30.277546360359526, rel=1e-10)
    assert expander == pytest.approx(12.31635150520916, rel=1e-10)


def test_the_loss_in_float32_is_the_official_one(seeded):
    loss = small(torch.float32, seeded)(seeded.views(2, 32, 0))["loss"]
    assert loss.item() == pytest.approx(21.82039451599121, rel=1e-5)


def test_the_loss_is_its_three_terms(seeded):
    first, second = seeded.normal(1, 6, 4), seeded.normal(2, 6, 4) * 0.5
    invariance = sum((a - b) ** 2 for a, b in zip(first.flatten(), second.flatten(), strict=True)) / 24
    variance, covariance = 0, 0
    for view in (first, second):
        variance += sum(max(0, 1 - (view[:, d].std() ** 2 + 1e-4) ** 0.5) for d in range(4)) / 4 / 2
        matrix = torch.cov(view.T)
        covariance += sum(matrix[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    torch.testing.assert_close(vicreg(first, second), 25 * invariance + 25 * variance + covariance)
    assert variance > 0.1


def test_weights_are_of_the_invariance_alone(seeded):
    first, second, weights = seeded.normal(1, 6, 4), seeded.normal(2, 6, 4), torch.linspace(0, 3, 6)
    assert torch.equal(vicreg(first, second), vicreg(first, second, weights=torch.ones(6)))
    rest = vicreg(first, second, invariance=0.0)
    assert torch.equal(vicreg(first, second, weights=torch.zeros(6)), rest)
    terms = (first - second).square().mean(dim=1)
    torch.testing.assert_close(vicreg(first, second, weights=weights) - rest, 25 * (weights * terms).mean())


def test_half_precision_is_computed_in_float32(seeded):
    first, second = seeded.normal(1, 6, 4).bfloat16(), seeded.normal(2, 6, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vicreg(first, second).item() == pytest.approx(vicreg(first.double(), second.double()).item(), rel=1e-5)


def test_mistakes_are_one_line(seeded, build):
    method = build("vicreg")
    with pytest.raises(ValueError, match=r"^expected at least 2 images over all ranks for VICReg, got 1; .*$"):
        method(seeded.views(2, 16, 0, batch=1))
    with pytest.raises(ValueError, match=r"^expected at least 2 images over all ranks for VICReg"):
        vicreg(torch.ones(1, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"^expected 2 views of each image for VICReg, got 3; .*$"):
        method(seeded.views(3, 16, 0))


def test_the_expander_is_the_published_one():
    class Flat(torch.nn.Flatten):
        num_features = 8

    with torch.device("meta"):
        method = VICReg(Flat())
    shapes = {name: tuple(p.shape) for name, p in method.encoder.head.named_parameters()}
    assert [shapes[f"{i}.weight"] for i in (0, 3, 6)] == [(8192, 8), (8192, 8192), (8192, 8192)]
    assert "0.bias" in shapes and "3.bias" in shapes and "6.bias" not in shapes and "7.weight" not in shapes
