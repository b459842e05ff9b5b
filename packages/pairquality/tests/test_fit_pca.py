import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist

from genviews_core.distributed import destroy_process_group
from pairquality import FeatureEncoder, ForegroundPCA, fit_pca, foreground_maps, foreground_ratio
from pairquality.token_statistics import UniformSample

# PCA() of tools/clip_pca/extract_features_pca.py in xiaojieli0903/genview (38a6a78) on the tokens of `images()`,
# and the threshold that its histogram functions choose for projections on this direction.
OFFICIAL_DIRECTION = [
    0.4592107, -0.23106694, -0.13005471, -0.28585926, -0.0744792, -0.38964742, 0.085636, -0.16734208,
    -0.16464934, -0.23929544, 0.01983603, 0.30112693, -0.3277541, -0.36419985, 0.12484317, 0.11533322,
]  # fmt: skip
OFFICIAL_THRESHOLD = 2.5612735748291016


def images(sign: float = 1.0, count: int = 40) -> torch.Tensor:
    """7 x 7 grids of 16-wide tokens: noise around an offset, and an object in the middle along one direction."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((count, 49, 16)) + 3
    rows, columns = np.mgrid[:7, :7]
    middle = np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 6).reshape(-1)
    return torch.from_numpy((tokens + sign * 4 * middle[None, :, None] * rng.standard_normal(16)).astype(np.float32))


def test_official_direction_and_threshold():
    found = fit_pca(images().split(13), 0.35, centered=False, threshold_rule="histogram")
    sign = torch.sign(found.direction @ torch.tensor(OFFICIAL_DIRECTION))
    torch.testing.assert_close(found.direction, sign * torch.tensor(OFFICIAL_DIRECTION), rtol=0, atol=1e-6)
    assert found.threshold == pytest.approx(OFFICIAL_THRESHOLD, abs=1e-5)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_asked_share_of_all_tokens_is_foreground(centered, share):
    found = fit_pca(images().split(7), share, centered=centered)
    assert float(foreground_ratio(found, images()).mean()) == pytest.approx(share, abs=1 / (40 * 49))


def test_equals_an_eigendecomposition_of_all_tokens_however_they_are_cut():
    tokens = images().flatten(0, 1).double()
    variances, directions = torch.linalg.eigh(tokens.T.cov())
    for size in (1, 7, 40):
        found = fit_pca((batch for batch in images().split(size)), 0.4)
        assert abs(float(found.direction.double() @ directions[:, -1])) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(found.mean.double(), tokens.mean(dim=0), rtol=0, atol=1e-6)
        assert found.threshold == pytest.approx(fit_pca([images()]).threshold, abs=1e-5)
    center = [row * 7 + column for row in range(1, 6) for column in range(1, 6)]
    border = [place for place in range(49) if place not in center]
    projected = (images().double() - tokens.mean(dim=0)) @ found.direction.double()
    margin = (projected[:, center].mean() - projected[:, border].mean()) / variances[-1].sqrt()
    assert found.margin == pytest.approx(float(margin), abs=1e-5)


def test_the_object_is_foreground_whatever_its_sign_and_the_sign_of_the_tokens():
    for tokens in (images(1.0), images(-1.0), -images(1.0), images(1.0) * 1e-3 + 1e3):
        found = fit_pca([tokens])
        maps = foreground_maps(found, tokens).mean(dim=0).view(7, 7)
        assert maps[3, 3] > maps[0].mean() + 0.2 and found.margin > 1


def test_oblong_grids_and_skipped_borders():
    tall = images()[:, :35]
    assert fit_pca([tall], grid=(5, 7)).margin > 0
    with pytest.raises(ValueError, match="got 35"):
        fit_pca([tall])
    padded = images().view(40, 7, 7, 16).clone()
    padding = 20 * torch.randn(16, generator=torch.Generator().manual_seed(1))
    padded[:, [0, -1]] += padding
    padded[:, :, [0, -1]] += padding
    padded = padded.view(40, 49, 16)
    inner = [row * 7 + column for row in range(1, 6) for column in range(1, 6)]
    _, directions = torch.linalg.eigh(images()[:, inner].flatten(0, 1).double().T.cov())
    aligned = [abs(float(fit_pca([padded], skip_border=s).direction.double() @ directions[:, -1])) for s in (0, 1)]
    assert aligned[0] < 0.9 and aligned[1] == pytest.approx(1, abs=1e-6)
    assert float(foreground_ratio(fit_pca([padded], skip_border=1), padded).mean()) == pytest.approx(0.4, abs=1e-3)


def test_an_uncertain_orientation_warns_and_a_sure_one_does_not():
    noise = torch.randn(200, 49, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="may be swapped"):
        fit_pca([noise])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_pca([images()])


def test_a_small_sample_gives_nearly_the_same_threshold():
    exact = fit_pca(images().split(7), 0.4)
    found = fit_pca(images().split(7), 0.4, sample_bytes=600 * 16 * 4)
    assert torch.equal(found.direction, exact.direction)
    # 600 of 1960 tokens: one standard deviation of the share is 0.02.
    assert 0 < abs(float(foreground_ratio(found, images()).mean()) - 0.4) < 0.06
    again = fit_pca(images().split(40), 0.4, sample_bytes=600 * 16 * 4)
    assert again.threshold == pytest.approx(found.threshold, abs=1e-5)


def test_the_sample_is_uniform():
    counts = torch.zeros(30)
    stream = torch.arange(30.0)[:, None]
    for seed in range(2000):
        sample = UniformSample(6, 1, seed)
        for rows in stream.split(7):
            sample.add(rows)
        kept = sample.rows.flatten().long()
        assert len(kept.unique()) == 6
        counts[kept] += 1
    # Each row is kept with probability 0.2: 400 times, standard deviation 18.
    assert (counts - 400).abs().max() < 75


def test_a_saved_pca_comes_back(tmp_path):
    found = fit_pca([images()], 0.3, centered=False)
    found.save(tmp_path / "pca.safetensors")
    again = ForegroundPCA.load(tmp_path / "pca.safetensors")
    assert torch.equal(foreground_maps(again, images()), foreground_maps(found, images()))
    numbers = ("threshold", "margin", "centered", "share_foreground")
    assert [getattr(again, name) for name in numbers] == [getattr(found, name) for name in numbers]
    assert [path.name for path in tmp_path.iterdir()] == ["pca.safetensors"]


def test_mistakes_are_named(tmp_path):
    broken = images()
    broken[3, 2, 1] = torch.nan
    for features, message in (
        ([], "got none"),
        ([broken], "NaN"),
        ([torch.ones(4, 49, 3)], "got equal ones"),
        (iter([images(), images()[:, :36]]), "expected tokens of one shape"),
        ([images()[:, :4]], "inside the border, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_pca(features)
    with pytest.raises(ValueError, match="share_foreground between 0 and 1, got 40"):
        fit_pca([images()], 40.0)
    with pytest.raises(ValueError, match="expected a foreground PCA"):
        ForegroundPCA.load(tmp_path / "missing")
    (tmp_path / "text").write_text("x")
    with pytest.raises(ValueError, match="does not hold"):
        ForegroundPCA.load(tmp_path / "text")


def fit_of_one_rank(rank: int, path: str) -> None:
    """Two thirds of the images, a third, and, in the third case, none."""
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    mine = images()[:26] if rank == 0 else images()[26:]
    together = fit_pca(mine.split(7), 0.4, group=dist.group.WORLD)
    sampled = fit_pca(mine.split(7), 0.4, sample_bytes=600 * 16 * 4, group=dist.group.WORLD)
    alone = fit_pca(images().split(7) if rank == 1 else [], 0.4, group=dist.group.WORLD)
    for name, pca in (("together", together), ("sampled", sampled), ("alone", alone)):
        pca.save(f"{path}/{name}{rank}")
    destroy_process_group()


def test_two_processes_fit_as_one(tmp_path):
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    expected = fit_pca(images().split(7), 0.4)
    for name in ("together", "alone", "sampled"):
        first, second = (ForegroundPCA.load(tmp_path / f"{name}{rank}") for rank in range(2))
        assert first.hash == second.hash
        torch.testing.assert_close(first.direction, expected.direction, rtol=0, atol=1e-6)
        torch.testing.assert_close(first.mean, expected.mean, rtol=0, atol=1e-6)
        if name == "sampled":  # 600 of 1960 tokens: one standard deviation of the share is 0.02
            assert 0 < abs(float(foreground_ratio(first, images()).mean()) - 0.4) < 0.06
        else:
            assert first.threshold == pytest.approx(expected.threshold, abs=1e-5)
            assert first.margin == pytest.approx(expected.margin, abs=1e-6)


def test_a_pca_belongs_to_its_encoder_and_a_changed_file_is_refused(tmp_path):
    encoder, other = (FeatureEncoder(torch.nn.Conv2d(3, 16, 4, 4), 28, name=name) for name in ("mine", "theirs"))
    found = fit_pca([images()], encoder=encoder, data="forty grids")
    path = tmp_path / "pca.safetensors"
    found.save(path)
    again = ForegroundPCA.load(path, encoder)
    assert again.fitted_on == found.fitted_on and again.hash == found.hash
    assert again.fitted_on is not None and (again.fitted_on.data, again.fitted_on.images) == ("forty grids", 40)
    with pytest.raises(ValueError, match=r"fitted on, mine .* got theirs"):
        ForegroundPCA.load(path, other)
    with pytest.raises(ValueError, match="does not record the encoder"):
        fit_pca([images()]).validate_encoder(encoder)
    with pytest.raises(ValueError, match="expected tokens of width 16, got 12"):
        found.project(images()[:, :, :12])
    data = path.read_bytes()
    for old, new in ((b"forty", b"fifty"), (b'\\"centred\\": true', b'\\"centred\\": null')):
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        with pytest.raises(ValueError, match="was changed after it was saved"):
            ForegroundPCA.load(path)
    path.write_bytes(data[:-4])
    with pytest.raises(ValueError, match="does not hold"):
        ForegroundPCA.load(path)


if __name__ == "__main__":
    fit_of_one_rank(int(sys.argv[1]), sys.argv[2])
