"""BYOL beside google-deepmind/deepmind-research@f5de0ed byol/, run in JAX on the same weights and images."""

import math

import pytest
import torch
from torch import nn

from sslzoo import apply_schedule, build_optimizer
from sslzoo.ema import ema_update
from sslzoo.methods import BYOL
from sslzoo.methods.byol import squared_distance


def norm(tensors) -> float:
    return torch.stack([tensor.detach().norm() for tensor in tensors if tensor is not None]).norm().item()


def gradient_norm(module) -> float:
    return norm(parameter.grad for parameter in module.parameters())


class OneConvolution(nn.Sequential):
    """The encoder of the run below; the official ResNet pads as TensorFlow does, which torch cannot."""

    num_features = 8

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 32, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())


# byol_experiment.py ByolExperiment._update_fn with jax 0.10.2 and dm-haiku 0.0.17: three steps, no warm-up, rate 0.6,
# decay 1e-6, base_target_ema 0.9, heads 32 and 16 wide, augmentations.postprocess left out. Each row: repr_loss; norms
# of the gradients of online network and predictor; norms of online network, predictor and target network.
STEPS = {
    torch.float64: [
        (5.453702199818431, 6.133698907524212, 12.521651861358535,
         13.266632762739777, 9.908559708548612, 13.266232983041837),
        (5.338250693449724, 5.0547167633019106, 13.629109852005135,
         13.267675980997769, 9.923339979141502, 13.266255219964561),
        (5.110147047839776, 5.6055853538986335, 14.19583916339706,
         13.268267187697367, 9.93283238647584, 13.266265860657654),
    ],
    torch.float32: [
        (4.2109479904174805, 6.1396102352224675, 10.737840716211114,
         13.287084768871217, 9.979446150578378, 13.286696583625607),
        (3.896989107131958, 7.938536360850553, 11.004593345037833,
         13.28863981450326, 9.988618851904446, 13.286705661576601),
        (3.5598950386047363, 8.924581674797398, 11.775015906226422,
         13.289654180778891, 9.994283738019506, 13.286709915815795),
    ],
}  # fmt: skip


TOLERANCE = {torch.float64: (1e-8, 1e-8), torch.float32: (1e-5, 1e-3)}
"""Of loss and lengths, and of gradients: haiku takes variances as E x^2 - (E x)^2, which costs digits in float32."""


@pytest.mark.parametrize("dtype", STEPS)
def test_three_steps_are_those_of_the_official_code(dtype, seeded):
    method = BYOL(OneConvolution(), projection_dim=16, hidden_dim=32, momentum=0.9).to(dtype)
    seeded.fill(method, dtype)
    ema_update(method.target, method.online, momentum=0.0)
    optimizer = build_optimizer("lars", method, lr=0.6, weight_decay=1e-6)
    networks, found = (method.online, method.predictor, method.target), []
    for step in range(3):
        apply_schedule(optimizer, 0.6 * 0.5 * (1 + math.cos(math.pi * step / 3)))
        loss = method(seeded.views(2, 32, 10 * step, dtype=dtype))["loss"]
        optimizer.zero_grad()
        loss.backward()
        gradients = gradient_norm(method.online), gradient_norm(method.predictor)
        optimizer.step()
        method.after_step((step + 1) / 3)
        found.append((loss.item(), *gradients, *(norm(network.parameters()) for network in networks)))
    for (loss, *gradients, a, b, c), expected in zip(found, STEPS[dtype], strict=True):
        assert (loss, a, b, c) == pytest.approx((expected[0], *expected[3:]), rel=TOLERANCE[dtype][0])
        assert gradients == pytest.approx(expected[1:3], rel=TOLERANCE[dtype][1])


def test_the_distance_is_that_of_points_on_the_sphere(seeded):
    first, second = seeded.normal(0, 6, 5), seeded.normal(1, 6, 5)
    weights, terms = torch.linspace(0, 2, 6), []
    for p, z, weight in zip(first, second, weights, strict=True):
        terms.append(weight * (p / p.norm() - z / z.norm()).square().sum() / 6)
    torch.testing.assert_close(squared_distance(3 * first, second, weights), sum(terms))


@pytest.mark.parametrize(("final", "shares"), [(1.0, [0.1, 0.05]), (0.9, [0.1, 0.1])])
def test_the_target_follows_as_told(final, shares):
    """By 1 - m of the way, with m of the step just taken: of the first, and of the one half way through."""
    method = BYOL(OneConvolution(), projection_dim=4, hidden_dim=8, momentum=0.9, final_momentum=final)
    target, online = method.target.head[0].bias, method.online.head[0].bias
    for progress, share in zip((0.5, 0.75), shares, strict=True):
        target.data.zero_()
        online.data.fill_(1.0)
        method.after_step(progress)
        torch.testing.assert_close(target, torch.full((8,), share))


def test_the_target_takes_no_gradient_and_the_online_network_is_exported(build, call):
    method = build("byol")
    call(method, 0)["loss"].backward()
    assert method.backbone is method.online.backbone
    assert all(parameter.grad is None for parameter in method.target.parameters())
    assert all(parameter.grad.any() for parameter in method.predictor[3:].parameters())


def test_a_forgotten_predictor_leaves_nothing_to_learn(build, seeded):
    """Stop-gradient: the loss reaches the online network through the predictor alone."""
    method = build("byol")
    method.predictor[-1].weight.data.zero_()
    method(seeded.views(2, 16, 0))["loss"].backward()
    assert all(not parameter.grad.any() for parameter in method.online.parameters())


def test_collapse_shows_in_the_spread(build, seeded):
    method, views = build("byol"), seeded.views(2, 16, 0)
    healthy = method(views)["std"]
    method.online.head[-1].weight.data.zero_()
    assert method(views)["std"] == 0
    assert 0.3 < healthy <= 1


def test_defaults_are_the_published_ones():
    class Flat(nn.Flatten):
        num_features = 8

    method = BYOL(Flat())
    assert method.online.head[0].weight.shape == (4096, 8) and method.online.head[3].weight.shape == (256, 4096)
    assert method.predictor[0].bias.shape == (4096,) and method.predictor[3].bias is None
    assert method.momenta == (0.996, 1.0)
