"""SimCLR, beside the TensorFlow code of google-research/simclr@383d414 run on the same weights and images."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from sslzoo import FeatureHook, PairFeatureHook, build_optimizer, create_backbone
from sslzoo.losses import nt_xent
from sslzoo.methods import SimCLR


@pytest.fixture
def unit(seeded):
    return lambda seed, *shape: functional.normalize(seeded.normal(seed, *shape), dim=-1)


def small(dtype, seeded):
    backbone = create_backbone("resnet10", cifar_stem=True, width=8)
    # resnet.py there has a projection shortcut in the first block of every stage
    backbone.layer1[0].downsample = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
    method = SimCLR(backbone, projection_dim=16, temperature=0.5).to(dtype)
    seeded.fill(method)
    return method


def test_three_training_steps_are_the_official_ones(seeded, first_steps):
    # resnet_v1_generator([1, 1, 1, 1]), projection_head, add_contrastive_loss, LARSOptimizer there, all in float64
    method = small(torch.float64, seeded)
    optimizer = build_optimizer("lars", method, lr=0.0, weight_decay=0.01, lr_in_momentum=True)
    losses, gradients, backbone, projector = first_steps(method, optimizer, [0.05, 0.06, 0.07])
    assert losses == pytest.approx([5.395919616125173, 6.461751682817022, 5.848668609089774], abs=1e-8)
    assert gradients == pytest.approx([56.46333499725994, 59.37251879459918, 52.40516629674604], rel=1e-8)
    assert backbone == pytest.approx(30.544849742486587, rel=1e-10)
    assert projector == pytest.approx(17.301451958574706, rel=1e-10)


def test_the_loss_in_float32_is_the_official_one(seeded):
    loss = small(torch.float32, seeded)(seeded.views(2, 32, 0))["loss"]
    assert loss.item() == pytest.approx(5.571581840515137, rel=1e-5)


@pytest.mark.parametrize("others", [0, 3])
def test_the_loss_is_the_logarithm_it_says(unit, others):
    first, second = unit(1, 4, 5), unit(2, 4, 5)
    more = unit(3, others, 5) if others else None
    views = [*first, *second, *(more if others else [])]
    total = 0
    for i in range(8):
        scores = [torch.exp(views[i] @ views[k] / 0.2) for k in range(8 + others) if k != i]
        total -= torch.log(torch.exp(views[i] @ views[(i + 4) % 8] / 0.2) / sum(scores))
    torch.testing.assert_close(nt_xent(first, second, temperature=0.2, others=more), total / 4)


def test_weights_multiply_the_terms_of_both_views(unit):
    first, second, weights = unit(1, 6, 5), unit(2, 6, 5), torch.linspace(0, 3, 6)
    one_hot = torch.stack([nt_xent(first, second, temperature=0.2, weights=row) for row in torch.eye(6)])
    torch.testing.assert_close(nt_xent(first, second, temperature=0.2, weights=weights), (weights * one_hot).sum())
    plain = nt_xent(first, second, temperature=0.2)
    assert torch.equal(plain, nt_xent(first, second, temperature=0.2, weights=torch.ones(6)))
    assert torch.equal(plain, nt_xent(second, first, temperature=0.2))


def test_half_precision_is_computed_in_float32(unit):
    first, second = unit(1, 6, 64).bfloat16(), unit(2, 6, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(first, second, temperature=0.1)
    assert loss.item() == pytest.approx(nt_xent(first.double(), second.double(), temperature=0.1).item(), rel=1e-5)


def test_both_views_are_one_batch_for_batch_norm(seeded, build):
    method, seen = build("simclr"), []
    method.backbone.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    method(seeded.views(2, 16, 0))
    assert seen == [16]


def test_weights_can_come_from_the_maps_of_each_view(seeded, build):
    method, views, seen = build("simclr").eval(), seeded.views(2, 16, 0), []
    tap = PairFeatureHook(method)

    def weights():
        seen.extend(tap.pop())
        return torch.zeros(8)

    assert method(views, weights)["loss"] == 0
    single = FeatureHook(method.backbone)
    for view, found in zip(views, seen, strict=True):
        method.backbone(view)
        torch.testing.assert_close(found, single.pop()[0])


def test_mistakes_are_one_line(seeded, build):
    with pytest.raises(ValueError, match=r"^expected at least 2 images over all ranks for NT-Xent, got 1; .*$"):
        build("simclr")(seeded.views(2, 16, 0, batch=1))
    with pytest.raises(ValueError, match=r"^expected 2 views of each image for SimCLR, got 3; .*$"):
        build("simclr")(seeded.views(3, 16, 0))


def test_the_projector_is_the_published_one():
    class Flat(nn.Flatten):
        num_features = 512

    head = SimCLR(Flat()).encoder.head
    trained = {name: tuple(p.shape) for name, p in head.named_parameters() if p.requires_grad}
    assert [trained[f"{i}.weight"] for i in (0, 3, 6, 7)] == [(512, 512), (512, 512), (128, 512), (128,)]
    assert {name for name in trained if name.endswith("bias")} == {"1.bias", "4.bias"}
    assert head[6].weight.std().item() == pytest.approx(0.01, rel=0.02)
