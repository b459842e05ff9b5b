"""The distilled scorer: what it learns, that it goes on where it was, and its file."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from pairquality import FeatureEncoder, ForegroundPCA, fit_images, foreground_maps, pair_scores, rank_correlation
from pairquality.scorers import DistillConfig, ExactScorer, distill, distillation_trainer, load_distilled
from pairquality.scorers.crops import crops
from pairquality.scorers.distillation_data import PairDataset, decode_size, seeded_generator
from pairquality.scorers.distillation_trainer import fit_subspace, pooled
from pairquality.scorers.distilled import ScorerNet, read_metadata

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = DistillConfig(steps=4, pairs=8, scorer_size=16, subspace=4, widths=(8, 8), held_out=8)


def encoder() -> FeatureEncoder:
    """Means of patches, mixed at random: colors and their edges."""
    torch.manual_seed(0)
    return FeatureEncoder(nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU()), 16, name="small")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A bright square somewhere inside, on a dark ground; each image its own colors."""
    root, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(80):
        pixels = np.empty((20, 20, 3))
        pixels[:] = generator.uniform(0, 100, 3)
        top, left = generator.integers(2, 10, 2)
        pixels[top : top + 8, left : left + 8] = generator.uniform(100, 255, 3)
        Image.fromarray((pixels + generator.uniform(0, 20, pixels.shape)).clip(0, 255).astype(np.uint8)).save(
            root / f"{number}.png"
        )
    return root


@pytest.fixture(scope="module")
def pca(images) -> ForegroundPCA:
    return fit_images(images, encoder())


@pytest.fixture(scope="module")
def small(images, pca, tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "scorer.safetensors"
    distill(images, out, encoder(), pca, SMALL)
    return out


def test_it_learns_to_rank_pairs(images, pca, tmp_path):
    config = DistillConfig(steps=150, pairs=16, scorer_size=16, widths=(16, 32), held_out=8, lr=5e-3)
    distill(images, tmp_path / "scorer", encoder(), pca, config)
    files = sorted(images.iterdir())
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])
    views = [crops(pixels, seeded_generator("test", side), size=16) for side in (0, 1)]
    mean, std = (torch.tensor(triple)[:, None, None] for triple in (MEAN, STD))
    views = [(view - mean) / std for view in views]
    exact = ExactScorer(encoder(), pca, mean=MEAN, std=STD)(*views)
    found = load_distilled(tmp_path / "scorer", mean=MEAN, std=STD)(*views)
    for name, least in (("quality", 0.7), ("foreground", 0.7), ("background", 0.7)):
        assert rank_correlation(getattr(found, name), getattr(exact, name)) > least, name


def test_interrupted_it_ends_the_same(images, pca, small, tmp_path):
    """Stopped in the middle, and begun anew by a process that knows nothing but the state."""

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    out = tmp_path / "scorer.safetensors"
    with pytest.raises(KeyboardInterrupt):
        distill(images, out, encoder(), pca, SMALL, checkpoint_seconds=0.0, on_progress=stop)
    assert not out.exists()
    seen = []
    distill(images, out, encoder(), pca, SMALL, on_progress=lambda done, total: seen.append(done))
    assert seen == [3, 4] and not list(tmp_path.glob("*.state"))
    whole, resumed = load_file(small), load_file(out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_is_finished_is_kept_for_its_own_training(images, pca, small):
    before = small.read_bytes()
    assert distill(images, small, encoder(), pca, SMALL) == read_metadata(small)
    assert small.read_bytes() == before
    with pytest.raises(ValueError, match="another encoder, PCA or training"):
        distill(images, small, encoder(), pca, DistillConfig(**{**vars(SMALL), "lr": 1.0}))


def test_the_file_says_what_it_is_and_cannot_be_changed(small, pca, tmp_path):
    about = read_metadata(small)
    assert (about.encoder, about.encoder_hash, about.pca_hash) == ("small", encoder().hash, pca.hash)
    assert (
        about.grid == (4, 4)
        and about.size == 16
        and set(about.rank_correlation) == {"quality", "foreground", "background"}
    )
    with pytest.raises(ValueError, match="expected a distilled scorer at"):
        read_metadata(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="does not hold a distilled scorer"):
        read_metadata(tmp_path / "text")
    pca.save(tmp_path / "pca")
    with pytest.raises(ValueError, match="does not hold a distilled scorer"):
        read_metadata(tmp_path / "pca")
    from safetensors import safe_open

    with safe_open(small, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(small)
    tensors["pca.direction"][0] += 1
    save_file(tensors, tmp_path / "changed", metadata)
    with pytest.raises(ValueError, match="was changed"):
        read_metadata(tmp_path / "changed")


def test_too_few_images_and_another_encoders_pca_are_refused(pca, tmp_path):
    (tmp_path / "few").mkdir()
    for number in range(5):
        Image.new("RGB", (20, 20)).save(tmp_path / "few" / f"{number}.png")
    with pytest.raises(ValueError, match="expected at least"):
        distill(tmp_path / "few", tmp_path / "out", encoder(), pca, SMALL)
    other = FeatureEncoder(encoder().network, 16, mean=MEAN, name="other")
    with pytest.raises(ValueError, match="got other"):
        distill(tmp_path / "few", tmp_path / "out", other, pca, SMALL)


def test_a_scorer_takes_views_of_any_size_and_scores_alike_under_autocast(small):
    scorer = load_distilled(small, mean=MEAN, std=STD)
    views = torch.randn(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = scorer(*views)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scorer(*views).quality, found.quality)
    halved = torch.nn.functional.avg_pool2d(views.flatten(0, 1), 2).unflatten(0, (2, 6))
    torch.testing.assert_close(scorer(*halved).quality, found.quality)
    assert scorer(*views[..., :12, :12]).quality.isfinite().all()
    half = load_distilled(small, mean=MEAN, std=STD, autocast=torch.bfloat16)
    torch.testing.assert_close(half(*views).quality, found.quality, atol=0.05, rtol=0)


def test_the_whole_space_keeps_every_score_and_a_part_the_most_of_the_vectors():
    """Beside random subspaces of the same width."""
    tokens = torch.randn(40, 9, 12, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 13) + 3
    nan = math.nan
    direction = torch.nn.functional.normalize(torch.ones(12), dim=0)
    pca = ForegroundPCA(
        direction=direction, mean=torch.zeros(12), threshold=nan, margin=nan, centered=True, share_foreground=nan
    )
    whole = fit_subspace(pca, tokens, 128)
    assert whole.basis.shape == (12, 12) and whole.kept == pytest.approx(1)
    inner, there = whole.project(tokens), whole.project_pca(pca)
    torch.testing.assert_close(foreground_maps(there, inner), foreground_maps(pca, tokens))
    exact, found = (
        pair_scores(each[:20], each[20:], foreground_maps(by, each[:20]), foreground_maps(by, each[20:]))
        for each, by in ((tokens, pca), (inner, there))
    )
    torch.testing.assert_close(found.quality, exact.quality, atol=1e-5, rtol=0)
    part = fit_subspace(pca, tokens, 5)
    torch.testing.assert_close(part.basis @ part.basis.T, torch.eye(5), atol=1e-5, rtol=0)
    assert float((part.basis @ direction).norm()) == pytest.approx(1, abs=1e-5)
    vectors = torch.cat(pooled(tokens, foreground_maps(pca, tokens)))
    for seed in range(20):
        others = torch.randn(4, 12, generator=torch.Generator().manual_seed(seed))
        basis = torch.linalg.qr(torch.cat([direction[None], others]).T).Q
        assert float((vectors @ basis).square().sum() / vectors.square().sum()) < part.kept


def test_crops_depend_on_the_generator_alone_and_cover_what_they_should():
    images = torch.arange(32 * 32).view(1, 1, 32, 32).expand(200, 3, 32, 32) // 8
    one, same, other = (crops(images.byte(), seeded_generator(seed), size=16) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (200, 3, 16, 16) and float(one.min()) >= 0 and float(one.max()) <= 1
    assert len(torch.unique(one.mean(dim=(1, 2, 3)))) > 190
    plain = torch.full((50, 3, 8, 8), 128, dtype=torch.uint8)
    found = crops(plain, seeded_generator(2), size=8)
    torch.testing.assert_close(found, found.mean(dim=(1, 2, 3), keepdim=True).expand_as(found), atol=1e-5, rtol=0)


def test_the_student_gives_the_grid_and_is_as_small_as_it_says():
    from torch.utils.flop_counter import FlopCounterMode

    assert ScorerNet(8, (7, 7))(torch.zeros(2, 3, 112, 112)).shape == (2, 8, 7, 7)
    assert ScorerNet(8, (16, 16), (8, 16), (1, 2))(torch.zeros(2, 3, 32, 32)).shape == (2, 8, 16, 16)
    with pytest.raises(ValueError, match="expected 2 depths, one for each width, got 1"):
        ScorerNet(8, (8, 8), (8, 16), (1,))
    with FlopCounterMode(display=False) as counter:
        ScorerNet(128, (7, 7))(torch.zeros(1, 3, 112, 112))
    assert counter.get_total_flops() / 2 == pytest.approx(0.48e9, rel=0.05)


def test_pairs_hold_the_views_that_are_there_and_the_images_again_where_none_is(images, tmp_path):
    keys = sorted(file.name for file in images.iterdir())[:4]
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / f"{keys[1]}.0.png")
    (tmp_path / f"{keys[2]}.0.jpg").write_text("broken")
    folder = PairDataset(root=images, views=tmp_path, keys=keys, size=20, workers=1)
    [(real, other)] = folder.in_order(4)
    assert torch.equal(other[1], torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 20, 20))
    assert all(torch.equal(real[place], other[place]) for place in (0, 2, 3))


def test_every_epoch_has_each_image_once_and_any_step_can_be_entered_at(images):
    keys = sorted(file.name for file in images.iterdir())[:10]
    folder = PairDataset(root=images, views=None, keys=keys, size=20, workers=1)
    batches = [real for real, _ in islice(folder.shuffled(4, seed=0), 10)]
    first, second = (torch.cat(batches)[start : start + 10].flatten(1) for start in (0, 10))
    assert len(first.unique(dim=0)) == len(second.unique(dim=0)) == 10 and not torch.equal(first, second)
    assert torch.equal(next(folder.shuffled(4, seed=0, start=7))[0], batches[7])


def test_what_cannot_be_read_is_left_out_and_a_whole_batch_of_it_is_told_in_training(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("broken")
    folder = PairDataset(root=tmp_path, views=None, keys=["a.png", "b.png"], size=20, workers=1)
    assert [len(real) for real, _ in folder.in_order(2)] == [len(real) for real, _ in folder.in_order(1)] == [1]
    with pytest.raises(ValueError, match="expected readable images under"):
        list(islice(folder.shuffled(1, seed=0), 2))


def test_crops_are_cut_from_squares_as_training_stores_them():
    assert (decode_size(224), decode_size(32)) == (288, 32)
    assert [DistillConfig().resolved_size(size) for size in (224, 64, 32)] == [112, 64, 32]


@pytest.mark.parametrize("damage", ["text", "other", "step"])
def test_a_damaged_state_is_a_one_line_error(images, pca, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(distillation_trainer, "SUBSPACE_OVER", 4)
    out, state = tmp_path / "out", tmp_path / "out.state"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(images, out, encoder(), pca, SMALL, checkpoint_seconds=0.0, on_progress=stop)
    held = torch.load(state, weights_only=True)
    if damage == "text":
        state.write_bytes(b"text")
    else:
        torch.save(held | ({"step": 10**9} if damage == "step" else {"student": {}}), state)
    with pytest.raises(ValueError, match=r"^[^\n]*out\.state[^\n]*delete it to start (afresh|again)[^\n]*$"):
        distill(images, out, encoder(), pca, SMALL)
    assert not out.exists() and not (tmp_path / ".out.lock").exists()
