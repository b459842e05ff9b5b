"""IC-GAN as a generator of views: noise, determinism, options and bad input."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from viewgen.icgan import ICGANConfig, ICGANGenerator, load_icgan
from viewgen.icgan.checkpoint import checkpoint_shapes
from viewgen.icgan.generator import normal_noise, truncated_noise

CONFIG = ICGANConfig(channels=(32, 32, 16, 16), attention=(1,), chunk=10, embedded=16, features=24)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    draws = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=draws).abs() + 0.5
        if name.endswith("stored_var")
        else torch.randn(shape, generator=draws)
        for name, shape in checkpoint_shapes(CONFIG).items()
    }
    path = tmp_path_factory.mktemp("icgan") / "G_ema_best0.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def features() -> Tensor:
    return normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def generator(weights) -> ICGANGenerator:
    return ICGANGenerator(weights=weights)


def levels_apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_views_are_the_network_s_images_rounded(generator, weights, features):
    views = generator.generate(features, seeds=range(5))
    assert views.shape == (5, 3, 32, 32)
    assert views.dtype == torch.uint8
    noise = truncated_noise(range(5), torch.full((5,), 0.7), CONFIG.dim_z)
    images = load_icgan(weights)(noise, features) * 0.5 + 0.5
    assert ((images * 255 - views).abs() <= 0.5 + 1e-3).all()
    assert views.float().std() > 10


def test_a_view_depends_on_its_seed_and_features_alone(generator, features):
    seeds = [11, 12, 13, 14, 2**63 - 1]
    together = generator.generate(features, seeds=seeds)
    for row in range(5):
        alone = generator.generate(features[row : row + 1], seeds=seeds[row : row + 1])
        assert levels_apart(alone[0], together[row]) <= 1
    assert torch.equal(generator.generate(features, seeds=seeds), together)
    assert levels_apart(generator.generate(features, seeds=[1, 2, 3, 4, 5]), together) > 10
    assert levels_apart(generator.generate(features.flip(0), seeds=seeds), together) > 10


def test_strength_is_each_view_s_truncation(generator, features):
    seeds = [3, 4, 5, 6, 7]
    strengths = torch.tensor([0.0, 0.3, 0.7, 1.0, 5.0])
    views = generator.generate(features, seeds=seeds, strength=strengths)
    usual = generator.generate(features, seeds=seeds)
    assert levels_apart(views[2], usual[2]) <= 1
    assert levels_apart(views[0], usual[0]) > 10
    other_seeds = generator.generate(features, seeds=[8, 9, 10, 11, 12], strength=strengths)
    assert levels_apart(views[0], other_seeds[0]) <= 1  # no noise is left
    assert levels_apart(views[4], other_seeds[4]) > 10


def test_the_length_of_the_features_does_not_matter(generator, features):
    one, other = (generator.generate(features * scale, seeds=range(5)) for scale in (1.0, 7.0))
    assert levels_apart(one, other) <= 1


@pytest.mark.parametrize("truncation", [0.2, 0.7, 1.0, 4.0])
def test_truncated_noise_is_the_standard_normal_between_two_truncations(truncation):
    rows = truncated_noise(range(200), torch.full((200,), truncation), 119).double()
    edge = 2 * truncation
    assert rows.abs().max() <= edge + 1e-6
    inside = math.erf(edge / math.sqrt(2))
    variance = 1 - 2 * edge * math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi) / inside
    assert float(rows.mean()) == pytest.approx(0, abs=4 * math.sqrt(variance / rows.numel()))
    assert float(rows.var()) == pytest.approx(variance, rel=0.03)
    within = float((rows.abs() < truncation).double().mean())
    assert within == pytest.approx(math.erf(truncation / math.sqrt(2)) / inside, abs=0.01)


def test_noise_grows_with_the_truncation_and_is_nothing_at_zero():
    rows = truncated_noise([5, 5, 5], torch.tensor([0.0, 0.5, 0.9]), 50)
    assert (rows[0].abs() < 1e-6).all()
    assert (rows[1].abs() < rows[2].abs()).all()
    assert (rows[1].sign() == rows[2].sign()).all()


def test_normal_noise_is_scaled_by_the_strength(weights, features):
    rows = normal_noise(range(200), torch.full((200,), 0.5), 119)
    assert float(rows.std()) == pytest.approx(0.5, rel=0.02)
    generator = ICGANGenerator(weights=weights, noise="normal")
    usual, doubled = (
        generator.generate(features, seeds=range(5), strength=None if scale == 1 else torch.full((5,), scale))
        for scale in (1, 2.0)
    )
    assert generator.strength_unit == "standard deviation"
    assert levels_apart(usual, doubled) > 10
    assert levels_apart(usual, generator.generate(features, seeds=range(5), strength=torch.ones(5))) == 0


def test_bfloat16_stays_near_float32(generator, weights, features):
    half = ICGANGenerator(weights=weights, dtype="bfloat16").generate(features, seeds=range(5))
    apart = (half.int() - generator.generate(features, seeds=range(5)).int()).abs().float()
    assert apart.mean() < 2


def test_views_can_have_another_size(generator, weights, features):
    small = ICGANGenerator(weights=weights, output_size=16).generate(features, seeds=range(5))
    assert small.shape == (5, 3, 16, 16)
    whole = generator.generate(features, seeds=range(5)).float()
    assert (small.float().mean((2, 3)) - whole.mean((2, 3))).abs().max() < 2


def test_what_the_manifest_says(generator, weights):
    assert (generator.name, generator.supervision, generator.licence) == ("icgan", "none", "CC-BY-NC 4.0")
    assert generator.model_id == "icgan-32px-ch2"
    assert generator.model_hash == ICGANGenerator(weights=weights.parent).model_hash
    assert generator.settings["default_strength"] == 0.7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"truncation": -0.1}, "strengths of 0 or more"),
        ({"truncation": math.nan}, "finite"),
        ({"output_size": 0}, "1 or more pixels"),
    ],
)
def test_options_out_of_range_are_refused(weights, options, told):
    with pytest.raises(ValueError, match=told):
        ICGANGenerator(weights=weights, **options)


@pytest.mark.parametrize(
    ("change", "seeds", "strength", "told"),
    [
        (lambda rows: rows[:, :20], 5, None, r"rows of 24 SwAV features, got shape \(5, 20\)"),
        (lambda rows: rows.index_fill(0, torch.tensor(2), math.nan), 5, None, "expected finite, nonzero"),
        (lambda rows: rows.index_fill(0, torch.tensor(2), math.inf), 5, None, "expected finite, nonzero"),
        (lambda rows: rows.index_fill(0, torch.tensor(2), 0.0), 5, None, "expected finite, nonzero conditions"),
        (lambda rows: rows, 4, None, "got 5 conditions and 4 seeds"),
        (lambda rows: rows, 5, torch.tensor([0.7, 0.7, 0.7, 0.7, -1.0]), "strengths of 0 or more"),
        (lambda rows: rows, 5, torch.tensor([0.7, 0.7, 0.7, 0.7, math.nan]), "finite"),
    ],
)
def test_bad_conditions_seeds_and_strengths_are_refused(generator, features, change, seeds, strength, told):
    with pytest.raises(ValueError, match=told):
        generator.generate(change(features), seeds=range(seeds), strength=strength)


def test_conditions_of_images_need_the_feature_extractor(generator):
    with pytest.raises(ValueError, match="expected features="):
        generator.condition(torch.zeros(1, 3, 40, 50, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected features="):
        generator.prepare(torch.zeros(3, 40, 50, dtype=torch.uint8))
