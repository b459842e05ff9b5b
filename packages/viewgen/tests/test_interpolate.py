import math

import numpy as np
import pytest
import torch

from viewgen import Interpolation, nearest_neighbors, nearest_partners, slerp, view_seed
from viewgen.interpolate import draw_alpha, random_partner


def pair(count=64, dim=16):
    draws = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=draws), 3 * torch.randn(count, dim, generator=draws)


def test_alpha_one_is_first_and_zero_is_second():
    first, second = pair()
    assert torch.equal(slerp(first, second, 1.0), first)
    assert torch.equal(slerp(first, second, 0.0), second)
    alpha = torch.tensor([1.0, 0.0] * 32)
    assert torch.equal(slerp(first, second, alpha), torch.where(alpha[:, None] == 1, first, second))


def test_agrees_with_the_textbook_formula():
    first, second = (vectors.double() for vectors in pair())
    u, v = first / first.norm(dim=1, keepdim=True), second / second.norm(dim=1, keepdim=True)
    for alpha in (0.1, 0.5, 0.8):
        between = slerp(first, second, alpha)
        for row in range(len(first)):
            theta = math.acos(float(u[row] @ v[row]))
            direction = math.sin(alpha * theta) * u[row] + math.sin((1 - alpha) * theta) * v[row]
            length = alpha * first[row].norm() + (1 - alpha) * second[row].norm()
            assert torch.allclose(between[row], length * direction / math.sin(theta), atol=1e-9)


def test_parallel_opposite_and_zero_vectors_are_safe():
    first, _ = pair()
    assert torch.allclose(slerp(first, 2 * first, 0.5), 1.5 * first, atol=1e-6)
    opposite = slerp(first, -first, 0.5)
    assert torch.allclose(opposite.norm(dim=1), first.norm(dim=1), atol=1e-5)
    assert (opposite * first).sum(dim=1).abs().max() < 1e-4
    axis = torch.eye(3)[:1]
    assert torch.allclose(slerp(axis, -axis, 0.5).norm(), torch.tensor(1.0))
    assert slerp(torch.zeros(2, 4), torch.ones(2, 4), 0.3).isfinite().all()
    near = first + 1e-6 * first.flip(0)
    assert torch.allclose(slerp(first, near, 0.5), first, atol=1e-4)


def test_random_partners_are_others_and_all_of_them():
    counts = np.zeros(5, int)
    for k in range(2000):
        counts[random_partner(view_seed(0, "key", k), 2, 5)] += 1
    assert counts[2] == 0
    assert all(400 < count < 600 for count in counts[[0, 1, 3, 4]])
    with pytest.raises(ValueError, match="at least two"):
        random_partner(1, 0, 1)


def test_alpha_law_is_uniform_on_its_range():
    drawn = [draw_alpha(view_seed(0, "key", k), Interpolation(alpha=(0.2, 0.6))) for k in range(2000)]
    assert 0.2 <= min(drawn) < 0.21
    assert 0.59 < max(drawn) <= 0.6
    assert abs(np.mean(drawn) - 0.4) < 0.01
    assert draw_alpha(7, Interpolation(alpha=0.7)) == 0.7


@pytest.mark.parametrize("alpha", [1.5, -0.1, (0.8, 0.2)])
def test_bad_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        Interpolation(alpha=alpha)


def test_nearest_partner_is_exact_across_chunks(monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "CHUNK_VALUES", 7 * 6)
    pool = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float16)
    unit = pool.astype(np.float64) / np.linalg.norm(pool.astype(np.float64), axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    assert nearest_partners(pool, range(40)).tolist() == similarity.argmax(axis=1).tolist()
