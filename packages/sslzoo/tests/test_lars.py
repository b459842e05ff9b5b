"""The options of LARS. Its plain update is in test_optim.py; rates that change, in the tests of the methods."""

import pytest
import torch
from torch import nn

from sslzoo import LARS


def test_clipping_agrees_with_solo_learn(seeded):
    # vturrisi/solo-learn@9187ea3 solo/utils/lars.py LARS(lr=0.03, momentum=0.9, eta=0.02, clip_lr=True,
    # exclude_bias_n_norm=True), three steps; the first matrix is clipped at each, the second never
    matrix, small = nn.Parameter(seeded.normal(1, 4, 3)), nn.Parameter(0.01 * seeded.normal(3, 2, 2))
    vector = nn.Parameter(seeded.normal(2, 4))
    optimizer = LARS([matrix, small, vector], lr=0.03, trust_coefficient=0.02, clip=True)
    for step in range(3):
        matrix.grad, small.grad = 0.3 * seeded.normal(10 + step, 4, 3), seeded.normal(30 + step, 2, 2)
        vector.grad = seeded.normal(20 + step, 4)
        optimizer.step()
    assert matrix.flatten().tolist() == pytest.approx(
        [
            0.6653309464454651, 0.2707381546497345, 0.08150333166122437, 0.6694658994674683, -0.47263628244400024,
            -0.14322464168071747, -1.5007400512695312, 0.4051811993122101, -1.0066680908203125, -0.5923945903778076,
            -0.8937758803367615, -0.03907403722405434,
        ],
        abs=1e-6,
    )  # fmt: skip
    assert small.flatten().tolist() == pytest.approx(
        [0.0075614009983837605, 0.0015018843114376068, 0.0008163009188137949, -0.005850822199136019], abs=1e-8
    )
    assert vector.tolist() == pytest.approx(
        [0.45328179001808167, -0.18841871619224548, -0.3671421706676483, -1.1127842664718628], abs=1e-6
    )


def test_biases_have_their_share_of_the_rate():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    matrix.grad, vector.grad = torch.ones(2, 2), torch.ones(2)
    LARS([matrix, vector], lr=0.5, trust_coefficient=0.1, bias_lr_factor=0.02).step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 1 - 0.5 * 0.1))
    torch.testing.assert_close(vector.detach(), torch.full((2,), 1 - 0.5 * 0.02))


def test_the_velocity_keeps_the_rate_of_its_own_step():
    moved = {}
    for inside in (False, True):
        vector = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = LARS([vector], lr=1.0, momentum=0.5, lr_in_momentum=inside)
        for rate in (1.0, 0.1):
            optimizer.param_groups[0]["lr"], vector.grad = rate, torch.ones_like(vector)
            optimizer.step()
        moved[inside] = vector.item()
    assert moved[True] == pytest.approx(-(1 + (0.5 * 1 + 0.1)))
    assert moved[False] == pytest.approx(-(1 + 0.1 * (0.5 + 1)))
