"""Numbers of GenView's own code: mmpretrain/models/selfsup/simsiam.py of xiaojieli0903/genview (38a6a78).

make_foreground_softmask, aggregate_feature, calculate_sim and calculate_weight with gamma 2 on `views()` and
`direction()`; the masked weights are calculate_weight of xiaojieli0903/GenViewPlusPlus (9c217c0).
"""

import numpy as np
import pytest
import torch

from pairquality import ForegroundPCA, foreground_maps, foreground_ratio, pair_scores, pair_weights

FOREGROUND = [0.86178637, 0.88896966, 0.92960316, 0.96570641, 0.98997998, 1.00000000]
BACKGROUND = [0.92409432, 0.94914138, 0.97083956, 0.98502123, 0.99409330, 0.99999988]
WEIGHTS = [0.93848795, 0.94250619, 0.97888398, 1.02275598, 1.05432832, 1.06303799]
MASKED_WEIGHTS = [0.94634539, 0.95039725, 0.0, 1.03131902, 0.0, 1.07193828]
FOURTH_ROW_OF_FIRST_MAP = [0.01867627, 0.02508448, 0.03673899, 0.02840257, 0.01927513, 0.02502760, 0.02171998]


def images(seed: int) -> torch.Tensor:
    """Six 7 x 7 grids of 16-wide tokens: noise around an offset, and an object in the middle."""
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((6, 49, 16)) + 3
    rows, columns = np.mgrid[:7, :7]
    middle = np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 6).reshape(-1)
    return torch.from_numpy((tokens + 4 * middle[None, :, None] * rng.standard_normal(16)).astype(np.float32))


def views() -> tuple[torch.Tensor, torch.Tensor]:
    first, other = images(1), images(2)
    share = torch.tensor([0, 0.2, 0.4, 0.6, 0.8, 1.0])[:, None, None]
    return first, share * first + (1 - share) * other.flip(0)


def pca(centered: bool = False, threshold: float = 0.0) -> ForegroundPCA:
    direction = torch.from_numpy(np.random.default_rng(3).standard_normal(16).astype(np.float32))
    return ForegroundPCA(
        direction=direction / direction.norm(), mean=torch.full((16,), 3.0), threshold=threshold, margin=1.0,
        centered=centered, share_foreground=0.4,
    )  # fmt: skip


@pytest.mark.parametrize("centered", [False, True])
def test_official_scores_and_weights(centered):
    first, second = views()
    maps = foreground_maps(pca(centered), first), foreground_maps(pca(centered), second)
    scores = pair_scores(first, second, *maps)
    # Centring moves all projections of an image alike, which the minimum takes out again.
    close = {"rtol": 0, "atol": 1e-6}
    shares = maps[0][0] / (maps[0][0].sum() + 1e-7)
    torch.testing.assert_close(shares[21:28], torch.tensor(FOURTH_ROW_OF_FIRST_MAP), **close)
    torch.testing.assert_close(scores.foreground, torch.tensor(FOREGROUND), **close)
    torch.testing.assert_close(scores.background, torch.tensor(BACKGROUND), **close)
    torch.testing.assert_close(scores.quality, scores.foreground - scores.background)
    torch.testing.assert_close(pair_weights(scores.quality, 2.0), torch.tensor(WEIGHTS), **close)
    mask = torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    torch.testing.assert_close(pair_weights(scores.quality, 2.0, mask=mask), torch.tensor(MASKED_WEIGHTS), **close)


def obvious_score(tokens_a, tokens_b, map_a, map_b) -> tuple[float, float]:
    """One pair, token by token, in float64."""

    def pooled(tokens, shares):
        return sum(share * token for token, share in zip(tokens, shares / shares.sum(), strict=True))

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    foreground = cosine(pooled(tokens_a, map_a), pooled(tokens_b, map_b))
    return foreground, cosine(pooled(tokens_a, 1 - map_a), pooled(tokens_b, 1 - map_b))


def test_scores_equal_the_obvious_reference_also_for_unequal_numbers_of_tokens():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 9, 5, generator=generator), torch.randn(3, 16, 5, generator=generator)
    map_a, map_b = torch.rand(3, 9, generator=generator), torch.rand(3, 16, generator=generator)
    found = pair_scores(a, b, map_a, map_b)
    for pair in range(3):
        s_f, s_b = obvious_score(a[pair].double(), b[pair].double(), map_a[pair].double(), map_b[pair].double())
        assert abs(float(found.foreground[pair]) - s_f) < 1e-6 and abs(float(found.background[pair]) - s_b) < 1e-6


def test_a_pair_with_itself_and_the_order_of_tokens():
    first, second = views()
    maps = foreground_maps(pca(), first), foreground_maps(pca(), second)
    same = pair_scores(first, first, maps[0], maps[0])
    torch.testing.assert_close(same.foreground, torch.ones(6))
    torch.testing.assert_close(same.quality, torch.zeros(6), rtol=0, atol=1e-6)
    order = torch.randperm(49, generator=torch.Generator().manual_seed(0))
    moved = pair_scores(first[:, order], second, maps[0][:, order], maps[1])
    torch.testing.assert_close(moved.quality, pair_scores(first, second, *maps).quality, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_flat_images_give_finite_numbers(dtype):
    first, _ = views()
    flat = torch.zeros(6, 49, 16, dtype=dtype)
    maps = foreground_maps(pca(), flat)
    assert torch.equal(maps, torch.zeros(6, 49))
    scores = pair_scores(flat, first.to(dtype), maps, foreground_maps(pca(), first))
    assert torch.equal(scores.foreground, torch.zeros(6)) and torch.equal(scores.background, torch.zeros(6))
    ones = pair_scores(first, first, torch.ones(6, 49), torch.ones(6, 49))
    torch.testing.assert_close(ones.foreground, torch.ones(6))
    assert torch.equal(ones.background, torch.zeros(6))


def test_autocast_and_gradients_do_not_reach_scores_and_weights():
    first, second = (tokens.requires_grad_() for tokens in views())

    def scored() -> torch.Tensor:
        maps = foreground_maps(pca(True), first), foreground_maps(pca(True), second)
        return pair_weights(pair_scores(first, second, *maps).quality)

    with torch.autocast("cpu", torch.bfloat16):
        rough = scored()
    assert torch.equal(rough, scored()) and not rough.requires_grad and first.grad is None


def test_the_ratio_counts_tokens_above_the_threshold():
    first, _ = views()
    projections = (first.double() - 3.0) @ pca().direction.double()
    expected = [sum(float(p) > 0.5 for p in image) / 49 for image in projections]
    assert foreground_ratio(pca(centered=True, threshold=0.5), first).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="got 15"):
        foreground_ratio(pca(), first[:, :, 1:])
