"""The permutation of an epoch."""

import numpy as np
import pytest

from pairdata.sampling import permute


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 255, 1000, 4096, 50_000])
def test_every_position_comes_once(length):
    order = permute(np.arange(length), length, seed=3, epoch=1)
    assert np.array_equal(np.sort(order), np.arange(length))


def test_any_piece_can_be_computed_alone():
    whole = permute(np.arange(1000), 1000, seed=0, epoch=5)
    assert np.array_equal(permute(np.arange(300, 400), 1000, seed=0, epoch=5), whole[300:400])


def test_a_billion_needs_no_memory():
    order = permute(np.arange(10**9 - 1000, 10**9), 10**9, seed=0, epoch=0)
    assert len(set(order.tolist())) == 1000
    assert order.max() < 10**9
    assert 0.4e9 < order.mean() < 0.6e9


def test_seed_and_epoch_each_give_another_order():
    orders = [permute(np.arange(1000), 1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    same = [(a == b).mean() for i, a in enumerate(orders) for b in orders[:i]]
    assert max(same) < 0.01


def test_orders_are_fair():
    """Over many epochs, every image comes equally often to every place (chi-square, 81 degrees of freedom)."""
    epochs, length = 3000, 10
    counts = np.zeros((length, length))
    for epoch in range(epochs):
        counts[np.arange(length), permute(np.arange(length), length, seed=0, epoch=epoch)] += 1
    expected = epochs / length
    assert ((counts - expected) ** 2 / expected).sum() < 140  # passed by chance with probability 0.9999


def test_neighbours_do_not_stay_neighbours():
    order = permute(np.arange(100_000), 100_000, seed=0, epoch=0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.01
