import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from genviews_core.distributed import destroy_process_group
from pairquality import pair_weights

QUALITY = [0.3, -0.2, 0.9, 0.0, -1.4]


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20), st.floats(0, 10))
def test_weights_are_a_softmax_with_mean_one_and_rise_with_quality(quality, gamma):
    q = torch.tensor(quality)
    weights = pair_weights(q, gamma)
    expected = len(q) * (gamma * q.double()).exp() / (gamma * q.double()).exp().sum()
    torch.testing.assert_close(weights.double(), expected, rtol=2e-5, atol=1e-7)
    assert float(weights.double().mean()) == pytest.approx(1, abs=1e-5)
    assert (weights[q.argsort()].diff() >= 0).all()


def test_gamma_zero_gives_ones_a_shift_changes_nothing_and_no_gradient_flows():
    q = torch.tensor(QUALITY, requires_grad=True)
    assert torch.equal(pair_weights(q, 0.0), torch.ones(5))
    torch.testing.assert_close(pair_weights(q + 500, 3.0), pair_weights(q, 3.0), rtol=1e-3, atol=1e-4)
    assert not pair_weights(q).requires_grad
    assert pair_weights(q.detach().half(), 400.0).isfinite().all()


def test_masked_pairs_count_for_nothing():
    q, mask = torch.tensor(QUALITY), torch.tensor([True, False, True, True, False])
    weights = pair_weights(q, 2.0, mask=mask)
    torch.testing.assert_close(weights[mask], pair_weights(q[mask], 2.0))
    assert torch.equal(weights[~mask], torch.zeros(2))
    assert torch.equal(pair_weights(q, mask=torch.zeros(5, dtype=torch.bool)), torch.zeros(5))
    square = pair_weights(torch.outer(q, q), mask=~torch.eye(5, dtype=torch.bool))
    assert float(square.sum()) == pytest.approx(20, abs=1e-4) and torch.equal(square.diagonal(), torch.zeros(5))


def weights_of_one_rank(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    mine = torch.tensor(QUALITY)[slice(0, 2) if rank == 0 else slice(2, 5)]
    everywhere = pair_weights(mine, 1.5, group=dist.group.WORLD)
    alone = pair_weights(mine, 1.5)
    masked = pair_weights(mine, 1.5, mask=torch.full_like(mine, rank == 1, dtype=torch.bool), group=dist.group.WORLD)
    torch.save((everywhere, alone, masked), f"{path}/{rank}.pt")
    destroy_process_group()


def test_two_processes_weigh_as_one_with_the_joined_batch(tmp_path):
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    q = torch.tensor(QUALITY)
    torch.testing.assert_close(torch.cat([found[0][0], found[1][0]]), pair_weights(q, 1.5))
    torch.testing.assert_close(torch.cat([found[0][1], found[1][1]]).mean(), torch.tensor(1.0))
    expected = pair_weights(q, 1.5, mask=torch.tensor([False, False, True, True, True]))
    torch.testing.assert_close(torch.cat([found[0][2], found[1][2]]), expected)


if __name__ == "__main__":
    weights_of_one_rank(int(sys.argv[1]), sys.argv[2])
