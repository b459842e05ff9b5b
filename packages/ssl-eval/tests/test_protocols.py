import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_eval import (
    PROTOCOLS,
    ClassTokens,
    FineTuneProtocol,
    KNNProtocol,
    LinearProtocol,
    ProtocolOverride,
    features_of,
    find_protocol,
    scale_protocol,
)

# As the sources print them: rate, batch, epochs, weight decay; rates "for 256 images" are scaled where the source does.
LINEAR = {
    "genview-linear": (0.4, 1024, 90, 0.0),
    "genview-linear-vit": (12.0, 1024, 90, 0.0),
    "mocov2-linear": (30.0, 256, 100, 0.0),
    "mocov3-linear": (0.1 * 1024 / 256, 1024, 90, 0.0),
    "mocov3-linear-vit": (3.0 * 1024 / 256, 1024, 90, 0.0),
    "simsiam-linear": (0.1 * 4096 / 256, 4096, 90, 0.0),
    "byol-linear": (0.2 * 1024 / 256, 1024, 80, 0.0),
    "swav-linear": (0.3, 8 * 32, 100, 1e-6),
    "vicreg-linear": (0.02, 256, 100, 1e-6),
    "dino-linear": (0.001 * 1024 / 256, 8 * 128, 100, 0.0),
}
# Head and backbone rate.
SEMI = {
    "genview-semi-1": (1.0, 1e-5),
    "genview-semi-10": (0.2, 0.02),
    "vicreg-semi-1": (0.08, 0.03),
    "vicreg-semi-10": (0.1, 0.01),
    "swav-semi-1": (5.0, 0.02),
    "swav-semi-10": (0.2, 0.01),
}


def test_the_published_numbers():
    for name, (rate, batch, epochs, decay) in LINEAR.items():
        found = PROTOCOLS[name]
        assert isinstance(found, LinearProtocol) and found.momentum == 0.9
        assert (found.batch_size, found.epochs, found.weight_decay) == (batch, epochs, decay), name
        assert found.learning_rate == pytest.approx(rate), name
    for name, (head, backbone) in SEMI.items():
        found = PROTOCOLS[name]
        assert isinstance(found, FineTuneProtocol) and found.epochs == 20 and found.weight_decay == 0
        assert (found.head_lr, found.backbone_lr) == (head, backbone), name
        assert name.endswith(f"-{found.percent}")
    knn = PROTOCOLS["dino-knn"]
    assert isinstance(knn, KNNProtocol) and sorted(knn.k) == [10, 20, 100, 200] and knn.temperature == 0.07
    assert {name for name, found in PROTOCOLS.items() if getattr(found, "larc", False)} == {"simsiam-linear"}
    assert {name for name, found in PROTOCOLS.items() if getattr(found, "nesterov", False)} == {"byol-linear"}
    assert all(found.source for found in PROTOCOLS.values())


@pytest.mark.parametrize(
    ("name", "epoch", "share", "factor"),
    [
        ("mocov2-linear", 59, 0.9, 1.0),
        ("mocov2-linear", 60, 0.0, 0.1),
        ("mocov2-linear", 99, 0.9, 0.01),
        ("swav-semi-1", 11, 0.0, 1.0),
        ("swav-semi-1", 12, 0.0, 0.2),
        ("swav-semi-10", 16, 0.5, 0.04),
        ("genview-linear", 45, 0.7, 0.5),
        ("byol-linear", 40, 0.5, 0.5 * (1 + math.cos(math.pi * 40.5 / 80))),
    ],
)
def test_the_published_schedules(name, epoch, share, factor):
    found = PROTOCOLS[name]
    assert found.schedule.factor(epoch, found.epochs, share) == pytest.approx(factor)


def test_another_batch_size_scales_every_rate_and_another_length_keeps_the_shape_of_the_schedule():
    assert scale_protocol(PROTOCOLS["mocov3-linear"], batch_size=256).learning_rate == pytest.approx(0.1)
    assert scale_protocol(PROTOCOLS["byol-linear"], batch_size=256).searched == pytest.approx(
        (0.4, 0.3, 0.2, 0.1, 0.05)
    )
    small = scale_protocol(PROTOCOLS["vicreg-semi-1"], batch_size=64, epochs=5)
    assert (small.head_lr, small.backbone_lr, small.epochs) == (0.02, 0.0075, 5)
    short = scale_protocol(PROTOCOLS["mocov2-linear"], epochs=10)
    assert [short.schedule.factor(epoch, 10, 0.0) for epoch in (5, 6, 8)] == pytest.approx([1, 0.1, 0.01])


def test_a_variant_says_what_was_changed():
    assert ProtocolOverride(name="mocov2-linear").label == "mocov2-linear"
    changed = ProtocolOverride(name="genview-linear", epochs=3, batch_size=64, cached=True)
    assert changed.options == ["--protocol=genview-linear", "--epochs=3", "--batch-size=64", "--cached"]
    assert changed.label == "genview-linear epochs=3 batch=64 cached"
    assert changed.protocol == scale_protocol(PROTOCOLS["genview-linear"], epochs=3, batch_size=64)
    with pytest.raises(ValueError, match="vicreg-linear"):
        find_protocol("vicreg-liner")
    with pytest.raises(ValueError, match="neither epochs nor batches"):
        _ = ProtocolOverride(name="dino-knn", epochs=2).protocol
    with pytest.raises(ValueError, match="trains the backbone"):
        _ = ProtocolOverride(name="swav-semi-1", cached=True).protocol


class Transformer(nn.Module):
    """Tokens in, as timm and DINO lay them out: one class token, two registers, blocks, a final norm."""

    num_prefix_tokens = 3

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 3, 6))
        self.blocks = nn.Sequential(*(nn.Linear(6, 6) for _ in range(5)))
        self.norm = nn.LayerNorm(6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), images.flatten(1).unflatten(1, (-1, 6))], dim=1)
        return self.norm(self.blocks(tokens))[:, 0]


@torch.no_grad()
def test_few_labels_have_rates_and_a_share_that_may_be_changed():
    given = {"percent": 5, "head_lr": 0.2, "backbone_lr": 0.0}
    changed = ProtocolOverride(name="vicreg-semi-10", batch_size=64, labels="balanced", **given)
    assert changed.label == "vicreg-semi-10 batch=64 percent=5 head=0.2 backbone=0 balanced"
    assert {name: getattr(changed.protocol, name) for name in given} == given  # not scaled with the batch
    assert changed.options == [
        "--protocol=vicreg-semi-10", "--batch-size=64", "--percent=5", "--head-lr=0.2", "--backbone-lr=0.0",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"dino-linear freezes the backbone .*; leave head_lr out"):
        _ = ProtocolOverride(name="dino-linear", head_lr=1.0).protocol


def test_class_tokens_are_those_of_the_last_blocks():
    torch.manual_seed(0)
    network, images = Transformer(), torch.randn(4, 3, 4, 4)
    tokens = torch.cat([network.cls_token.expand(4, -1, -1), images.flatten(1).unflatten(1, (-1, 6))], dim=1)
    normalized = []
    for block in network.blocks:
        tokens = block(tokens)
        normalized.append(network.norm(tokens))
    four = features_of(network, ClassTokens(blocks=4))(images)
    torch.testing.assert_close(four, torch.cat([each[:, 0] for each in normalized[-4:]], dim=1))
    torch.testing.assert_close(four[:, -6:], network(images))
    one = features_of(network, ClassTokens(blocks=1, average=True))(images)
    torch.testing.assert_close(one, torch.cat([normalized[-1][:, 0], normalized[-1][:, 3:].mean(dim=1)], dim=1))
    assert features_of(network, None) is network
    assert not any(block._forward_hooks for block in network.blocks)


def test_networks_without_class_tokens_are_named():
    with pytest.raises(ValueError, match="expected transformer blocks"):
        features_of(nn.Sequential(nn.Flatten()), ClassTokens(blocks=4))
    with pytest.raises(ValueError, match="got 5"):
        features_of(Transformer(), ClassTokens(blocks=6))
    without = Transformer()
    without.cls_token = None
    with pytest.raises(ValueError, match="expected a class token"):
        features_of(without, replace(ClassTokens(blocks=4), average=True))
