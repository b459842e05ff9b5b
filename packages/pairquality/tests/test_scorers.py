"""Exact and self scores, beside slow ways to the same numbers; the streamed PCA beside a decomposition."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn

from genviews_core.distributed import destroy_process_group
from pairquality import FeatureEncoder, fit_pca, foreground_maps, pair_scores, pair_weights, rank_correlation
from pairquality.scorers import ExactScorer, OnlineScorer, StreamingPCA
from pairquality.scorers.streaming_pca import ForegroundPCA

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def object_maps(seed: int, images: int = 16, side: int = 6, width: int = 5) -> torch.Tensor:
    """Noise, and a hill in the middle along a direction; off the origin."""
    maps = normal(seed, images, side, side, width)
    for ring in range(1, (side + 1) // 2):
        maps[:, ring : side - ring, ring : side - ring] += torch.arange(width) * 1.0
    return (maps + 3).flatten(1, 2)


def encoder() -> FeatureEncoder:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 1, 1))
    return FeatureEncoder(network, 16, name="small")


def test_exact_is_pair_scores_of_the_images_that_the_views_are():
    frozen, images = encoder(), torch.rand(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pca = fit_pca([frozen(images[0])], encoder=frozen)
    mean, std = (torch.tensor(triple)[:, None, None] for triple in (MEAN, STD))
    scorer = ExactScorer(frozen, pca, mean=MEAN, std=STD)
    first, second = frozen(images[0]), frozen(images[1])
    expected = pair_scores(first, second, foreground_maps(pca, first), foreground_maps(pca, second))
    views = ((images - mean) / std).requires_grad_()
    found = scorer(*views)
    for name in ("foreground", "background", "quality"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    by_hand = 4 * torch.softmax(3 * expected.quality, dim=0)
    torch.testing.assert_close(pair_weights(found.quality, 3.0), by_hand)
    assert not found.quality.requires_grad and scorer.state_dict() == {}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scorer(*views).quality, found.quality)


def test_exact_refuses_the_pca_of_another_encoder():
    frozen = encoder()
    pca = fit_pca([frozen(torch.rand(8, 3, 16, 16))], encoder=frozen)
    other = FeatureEncoder(encoder().network, 16, mean=MEAN, name="other")
    with pytest.raises(ValueError, match="got other"):
        ExactScorer(other, pca, mean=MEAN, std=STD)


@pytest.mark.parametrize("skip_border", [0, 1])
def test_the_streamed_component_is_that_of_all_tokens(skip_border):
    """Without forgetting, beside fit_pca, whose decomposition is exact."""
    streaming = StreamingPCA(decay=1.0, iterations=4, skip_border=skip_border)
    batches = [object_maps(seed) for seed in range(30)]
    for batch in batches:
        streaming.update(batch)
    expected = fit_pca(batches, skip_border=skip_border)
    torch.testing.assert_close(streaming.pca.direction, expected.direction, atol=1e-5, rtol=0)
    torch.testing.assert_close(streaming.pca.mean, expected.mean)
    assert streaming.pca.margin == pytest.approx(expected.margin, rel=1e-3)


def test_forgetting_is_exponential():
    """Beside the weighted covariance of all tokens, in one formula."""
    decay, batches = 0.8, [object_maps(seed, images=4).double() for seed in range(40)]
    streaming = StreamingPCA(decay=decay, iterations=50, skip_border=0)
    weights: list[float] = []
    for number, batch in enumerate(batches, 1):
        streaming.update(batch)
        rate = max(1 - decay, 1 / number)
        weights = [weight * (1 - rate) for weight in weights] + [rate]
    shares = torch.tensor(weights, dtype=torch.float64).repeat_interleave(4 * 36) / (4 * 36)
    tokens = torch.cat(batches).flatten(0, 1)
    mean = shares @ tokens
    covariance = (tokens - mean).T @ (shares[:, None] * (tokens - mean))
    state = streaming.state_dict()
    torch.testing.assert_close(state["mean"], mean)
    torch.testing.assert_close(state["covariance"], covariance)
    expected = torch.linalg.eigh(covariance).eigenvectors[:, -1]
    assert abs(float(state["direction"] @ expected)) == pytest.approx(1, abs=1e-9)


def test_it_follows_a_network_that_turns_and_keeps_its_sign():
    """Half a turn in one plane, in small steps, ends at the opposite direction."""
    streaming, steps = StreamingPCA(decay=0.5), 60
    start = fit_pca([object_maps(0)]).direction
    plane = torch.linalg.qr(torch.stack([start, normal(5, 5)], dim=1)).Q
    generator = plane[:, :1] @ plane[:, 1:].T - plane[:, 1:] @ plane[:, :1].T
    directions = []
    for step in range(steps + 1):
        streaming.update(object_maps(step) @ torch.matrix_exp(generator * (torch.pi * step / steps)))
        directions.append(streaming.pca.direction)
    assert min(float(one @ other) for one, other in pairwise(directions)) > 0.95
    assert float(directions[0] @ directions[-1]) < -0.9 and streaming.pca.margin > 0.5


def test_a_wrong_first_sign_is_turned_when_the_border_says_so():
    streaming = StreamingPCA(decay=0.5, skip_border=0)
    inside_out = object_maps(0).unflatten(1, (6, 6)).roll((3, 3), (1, 2)).flatten(1, 2)
    streaming.update(inside_out)
    first = streaming.pca.direction
    for step in range(1, 9):
        streaming.update(object_maps(step))
    assert float(first @ streaming.pca.direction) < -0.9 and streaming.pca.margin > 0.5


def test_padding_is_left_out_only_where_there_is_room():
    padded = object_maps(0, side=7).unflatten(1, (7, 7))
    padded[:, 0] = padded[:, -1] = padded[:, :, 0] = padded[:, :, -1] = 100.0
    streaming = StreamingPCA()
    streaming.update(padded.flatten(1, 2))
    assert float(streaming.pca.mean.max()) < 20
    with pytest.raises(ValueError, match="expected tokens inside the border, got a map of 2 x 2"):
        StreamingPCA().update(normal(0, 4, 4, 5))
    with pytest.raises(ValueError, match="NaN"):
        StreamingPCA().update(torch.full((4, 16, 5), torch.nan))


def views(count: int = 8) -> torch.Tensor:
    return torch.zeros(count, 3, 4, 4)


def test_self_is_pair_scores_by_its_component():
    scorer, maps = OnlineScorer(pca_interval=2, tokens=10**6), (object_maps(0, 8), object_maps(1, 8))
    found = scorer(views(), views(), tuple(each.requires_grad_() for each in maps))
    pca: ForegroundPCA = fit_pca([torch.cat(maps)])
    expected = pair_scores(*maps, foreground_maps(pca, maps[0]), foreground_maps(pca, maps[1]))
    torch.testing.assert_close(found.quality, expected.quality, atol=1e-5, rtol=0)
    assert not found.quality.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        again = scorer(views(), views(), maps)
    assert torch.equal(again.quality, found.quality)
    with pytest.raises(ValueError, match="give maps"):
        scorer(views(), views())


def test_self_looks_at_a_part_of_every_few_steps():
    scorer, seen = OnlineScorer(pca_interval=3, tokens=2 * 36 * 4), []
    update = scorer.streaming.update
    scorer.streaming.update = lambda tokens: (seen.append(tokens), update(tokens))
    maps = object_maps(0, 8), object_maps(1, 8)
    for _ in range(7):
        scorer(views(), views(), maps)
    assert len(seen) == 3 and torch.equal(seen[0], torch.cat([maps[0][::2], maps[1][::2]]))


def test_self_resumes_to_the_bit(tmp_path):
    def run(scorer, steps):
        return [
            scorer(views(), views(), (object_maps(2 * step, 8), object_maps(2 * step + 1, 8))).quality for step in steps
        ]

    straight = run(OnlineScorer(pca_interval=3), range(10))
    first = OnlineScorer(pca_interval=3)
    run(first, range(5))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = OnlineScorer(pca_interval=3)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(map(torch.equal, run(second, range(5, 10)), straight[5:]))
    unused = OnlineScorer()
    unused.load_state_dict(OnlineScorer().state_dict())
    assert all(map(torch.equal, run(unused, range(2)), run(OnlineScorer(), range(2))))


def self_of_one_rank(rank: int, ranks: int, path: str) -> None:
    torch.set_num_threads(1)
    group = None
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=ranks)
        group = dist.group.WORLD
    scorer, found = OnlineScorer(pca_interval=2, tokens=2 * 36 * 4, group=group), []
    for step in range(5):
        maps = tuple(object_maps(2 * step + side, 8).chunk(ranks)[rank] for side in (0, 1))
        quality = scorer(views(8 // ranks), views(8 // ranks), maps).quality
        found.append((quality, pair_weights(quality, 5.0, group=group), scorer.streaming.state_dict()["direction"]))
    torch.save(found, f"{path}/{ranks}.{rank}.pt")
    if ranks > 1:
        destroy_process_group()


def test_two_ranks_are_one(tmp_path):
    program = "import sys, test_scorers; test_scorers.self_of_one_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])"
    places = [(0, 1), (0, 2), (1, 2)]
    folder = __file__.rpartition("/")[0]
    jobs = [
        subprocess.Popen([sys.executable, "-c", program, str(rank), str(ranks), str(tmp_path)], cwd=folder)
        for rank, ranks in places
    ]
    assert [job.wait(120) for job in jobs] == [0, 0, 0]
    one, *two = [torch.load(tmp_path / f"{ranks}.{rank}.pt") for rank, ranks in places]
    for step in range(5):
        for part in (0, 1):
            torch.testing.assert_close(torch.cat([rank[step][part] for rank in two]), one[step][part])
        assert torch.equal(two[0][step][2], two[1][step][2])
        torch.testing.assert_close(two[0][step][2], one[step][2])


def test_rank_correlation_is_spearmans():
    first, second = torch.tensor([1.0, 2.0, 2.0, 4.0]), torch.tensor([10.0, 30.0, 20.0, 40.0])
    ranks = torch.tensor([1.0, 2.5, 2.5, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    assert rank_correlation(first, second) == pytest.approx(float(torch.corrcoef(torch.stack(ranks))[0, 1]))
    assert rank_correlation(first, first.exp()) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert rank_correlation(first, torch.ones(4)) == 0
