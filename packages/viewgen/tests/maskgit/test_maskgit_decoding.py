"""Iterative decoding against the official code and against a slow reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viewgen.maskgit import (
    DecodingNoise,
    center_mask,
    decode,
    decode_with,
    draw_noise,
    load_transformer,
    masked_counts,
)

# final tokens of parallel_decode.decode, google-research/maskgit@1db2359, with jax.random.categorical replaced by the
# inverse of the distribution function and jax.random.gumbel by a table, both from the closed formula in conftest.py
OFFICIAL = {
    (12, 0, 13): [
        [16, 15, 0, 22, 7, 1, 5, 19, 18, 14, 14, 14, 7, 16, 14, 16],
        [4, 4, 7, 13, 3, 9, 18, 0, 10, 14, 16, 16, 11, 16, 3, 18],
    ],
    (12, 2, 13): [
        [13, 15, 4, 7, 13, 1, 4, 19, 16, 14, 14, 16, 7, 7, 14, 12],
        [4, 4, 7, 4, 3, 9, 21, 0, 10, 14, 7, 16, 11, 16, 14, 14],
    ],
    (8, 0, 16): [
        [14, 21, 13, 16, 12, 22, 4, 20, 4, 14, 7, 14, 19, 16, 9, 15],
        [12, 20, 7, 7, 7, 4, 7, 4, 8, 14, 18, 16, 7, 4, 7, 14],
    ],
}


@pytest.fixture
def transformer(official):
    return load_transformer(official.transformer, codes=official.codes)


class Recorder:
    """A predictor with fixed logits that counts the masked cells it is shown."""

    mask_id = 99

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.seen = logits, []

    def code_logits(self, tokens):
        self.seen.append((tokens[:, 1:] == self.mask_id).sum(1).tolist())
        return self.logits.expand(len(tokens), -1, -1)


@pytest.mark.parametrize(("steps", "start", "unknown"), OFFICIAL)
def test_decoding_is_the_official_one(transformer, formula, steps, start, unknown):
    codes = torch.from_numpy(np.floor(formula(1001, (2, 16), 0.5, 0.5) * 24).astype(np.int64))
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, np.argsort(formula(2002, (16,), 1.0))[:unknown].tolist()] = True
    uniforms = torch.from_numpy(formula(2000, (2, steps, 16), 0.5, 0.5))
    gumbels = -torch.log(-torch.log(torch.from_numpy(formula(2001, (2, steps, 16), 0.499, 0.5))))
    tokens = torch.cat([torch.full((2, 1), 24 + 3), codes], 1)
    painted = decode_with(transformer, tokens, mask, DecodingNoise(uniforms, gumbels), start=start)
    assert painted.tolist() == OFFICIAL[steps, start, unknown]


def slow_decode(logits, known, mask, uniforms, gumbels, start, temperature):
    """One image, cell by cell, as the paper says it."""
    steps, cells = len(uniforms), len(known)
    codes = [None if mask[cell] else known[cell] for cell in range(cells)]
    first = sum(mask)
    for step in range(start, steps):
        unknown = [cell for cell in range(cells) if codes[cell] is None]
        sampled, confidence = list(codes), {}
        for cell in unknown:
            weights = [math.exp(value) for value in logits[cell]]
            chances = [weight / sum(weights) for weight in weights]
            total, code = chances[0], 0
            while total <= uniforms[step][cell]:
                code += 1
                total += chances[code]
            sampled[cell] = code
            progress = (step + 1) / steps
            confidence[cell] = math.log(chances[code]) + temperature * (1 - progress) * gumbels[step][cell]
        if step == steps - 1:
            return sampled
        again = max(1, min(len(unknown) - 1, math.floor(first * math.cos(math.pi / 2 * (step + 1) / steps))))
        worst = sorted(unknown, key=confidence.__getitem__)[: again if len(unknown) > 1 else len(unknown)]
        codes = [None if cell in worst else sampled[cell] for cell in range(cells)]
    raise AssertionError("no step")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(0, 12), st.floats(0, 6))
def test_decoding_equals_a_slow_reference(seed, steps, unknown, temperature):
    draws = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1, 12, 7, generator=draws)
    known = torch.randint(7, (1, 12), generator=draws)
    mask = torch.rand(1, 12, generator=draws).argsort(1) < unknown
    start = int(torch.randint(steps, (), generator=draws))
    noise = draw_noise([seed], steps, 12)
    predictor = Recorder(logits)
    tokens = torch.cat([torch.zeros(1, 1, dtype=torch.long), known], 1)
    painted = decode_with(predictor, tokens, mask, noise, start=start, choice_temperature=temperature)
    expected = slow_decode(
        logits[0].double().tolist(),
        known[0].tolist(),
        mask[0].tolist(),
        *(n[0].tolist() for n in noise),
        start,
        temperature,
    )
    assert painted[0].tolist() == expected


def test_masked_counts_of_gencl():
    mask = center_mask(16)[None]
    assert int(mask.sum()) == 196
    predictor = Recorder(torch.zeros(1, 256, 5))
    decode(predictor, torch.zeros(1, 257, dtype=torch.long), mask, seeds=[3])
    assert [count for (count,) in predictor.seen] == [196, 194, 189, 181, 169, 155, 138, 119, 98, 75, 50, 25]
    assert masked_counts(torch.tensor([196]))[:, 0].tolist()[-1] == 0


def test_later_starts_take_the_end_of_the_schedule():
    mask = center_mask(16)[None]
    predictor = Recorder(torch.zeros(1, 256, 5))
    decode(predictor, torch.zeros(1, 257, dtype=torch.long), mask, seeds=[3], start=2)
    assert [count for (count,) in predictor.seen] == [196, 181, 169, 155, 138, 119, 98, 75, 50, 25]


def test_known_cells_stay_and_codes_under_the_mask_do_not_matter(transformer):
    tokens = torch.randint(24, (1, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(16)[None] % 3 == 0
    other = tokens.clone()
    other[:, 1:][mask] = 5
    painted = decode(transformer, tokens, mask, seeds=[4])
    assert torch.equal(painted[~mask], tokens[:, 1:][~mask])
    assert torch.equal(painted, decode(transformer, other, mask, seeds=[4]))
    assert int(painted.max()) < 24


def test_nothing_masked_is_nothing_painted(transformer):
    tokens = torch.randint(24, (2, 17), generator=torch.Generator().manual_seed(1))
    painted = decode(transformer, tokens, torch.zeros(2, 16, dtype=torch.bool), seeds=[1, 2])
    assert torch.equal(painted, tokens[:, 1:])


def test_an_image_does_not_depend_on_its_neighbours():
    predictor = Recorder(torch.randn(1, 16, 9, generator=torch.Generator().manual_seed(0)))
    tokens, mask = (
        torch.zeros(3, 17, dtype=torch.long),
        torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.7,
    )
    together = decode(predictor, tokens, mask, seeds=[7, 8, 9])
    assert torch.equal(together[2:], decode(predictor, tokens[2:], mask[2:], seeds=[9]))
    assert not torch.equal(together[2:], decode(predictor, tokens[2:], mask[2:], seeds=[10]))


def test_codes_follow_the_predicted_distribution():
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    predictor = Recorder(chances.log().expand(1, 400, 5))
    painted = torch.cat(
        [
            decode(
                predictor,
                torch.zeros(1, 401, dtype=torch.long),
                torch.ones(1, 400, dtype=torch.bool),
                seeds=[s],
                steps=1,
            )
            for s in range(50)
        ]
    )
    shares = painted.flatten().bincount(minlength=5) / painted.numel()
    assert (shares - chances).abs().max() < 4 * (0.25 / painted.numel()) ** 0.5
    assert shares[4] == 0


def test_misuse_is_told(transformer):
    tokens, mask = torch.zeros(1, 17, dtype=torch.long), torch.ones(1, 16, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"expected start in 0\.\.steps-1"):
        decode(transformer, tokens, mask, seeds=[1], steps=4, start=4)
    with pytest.raises(ValueError, match="one seed per image, got 2 seeds for 1"):
        decode(transformer, tokens, mask, seeds=[1, 2])
