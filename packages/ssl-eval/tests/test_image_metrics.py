"""FID, SSIM, LPIPS and cosine against formulas in float64 and against the libraries' own networks."""

import io
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchmetrics", reason="genviews-ssl-eval[images] is not installed")
pytest.importorskip("torch_fidelity", reason="genviews-ssl-eval[images] is not installed")
linalg = pytest.importorskip("scipy.linalg", reason="genviews-ssl-eval[images] is not installed")
from scipy.ndimage import correlate1d  # noqa: E402

from ssl_eval.image_metrics import image_metrics  # noqa: E402
from ssl_eval.metric_networks import ImageFeatures, load_inception, load_lpips  # noqa: E402
from ssl_eval.view_cost import count_parameters  # noqa: E402


def pairs(count: int = 40, size: int = 16, noise: float = 40.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images, and the same with noise."""
    rng = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(count, 3, 4, 4, generator=rng)
    images = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255)
    views = (images + noise * torch.randn(images.shape, generator=rng)).clamp(0, 255)
    return images.byte(), views.byte()


def batches(images: torch.Tensor, views: torch.Tensor, size: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(images.split(size), views.split(size), strict=True))


def small_features() -> ImageFeatures:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return ImageFeatures(network, name="small network", size=12)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Heusel et al. 2017, eq. 6, with scipy's matrix square root."""
    means, covariances = zip(*((x.mean(0), np.cov(x, rowvar=False)) for x in (first, second)), strict=True)
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    return float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real))


def test_fid_is_the_formula_in_float64_whatever_the_batches():
    images, views = pairs()
    features = small_features()
    with torch.no_grad():
        first, second = (features(each).double().numpy() for each in (images, views))
    expected = frechet(first, second)
    for size in (7, 40):
        found = image_metrics(batches(images, views, size), fid=features)
        assert found.fid == pytest.approx(expected, rel=1e-6) and found.fid_features == "small network"
    assert image_metrics(batches(images, images), fid=features).fid == pytest.approx(0, abs=1e-6 * expected)


def test_fid_is_torch_fidelitys_too():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    images, views = pairs(seed=1)
    features = small_features()
    with torch.no_grad():
        statistics = [fid_features_to_statistics(features(each)) for each in (images, views)]
    told = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert image_metrics(batches(images, views), fid=features).fid == pytest.approx(told, rel=1e-5)


def windowed_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13: 11 Gaussian taps of sigma 1.5, borders mirrored, mean over pixels and channels."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))

    def local(x: np.ndarray) -> np.ndarray:
        for axis in (1, 2):
            x = correlate1d(x, taps / taps.sum(), axis=axis, mode="mirror")
        return x

    x, y = first / 255.0, second / 255.0
    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x**2 + local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    upper = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    return float((upper / ((mean_x**2 + mean_y**2 + 0.01**2) * (variances + 0.03**2))).mean())


def test_ssim_is_the_formula_and_its_deviation_is_over_pairs():
    images, views = pairs()
    each = [
        windowed_ssim(image.double().numpy(), view.double().numpy()) for image, view in zip(images, views, strict=True)
    ]
    found = image_metrics(batches(images, views))
    assert 0.1 < found.ssim < 0.95
    assert found.ssim == pytest.approx(np.mean(each), abs=1e-5)
    assert found.ssim_deviation == pytest.approx(np.std(each), abs=1e-5)
    same = image_metrics(batches(images, images))
    assert (same.pairs, same.fid, same.lpips) == (40, None, None) and same.ssim == pytest.approx(1)


def test_cosine_is_the_mean_over_pairs():
    images, views = pairs()
    features = small_features()
    with torch.no_grad():
        one, two = features(images).double(), features(views).double()
    expected = ((one * two).sum(1) / one.norm(dim=1) / two.norm(dim=1)).mean()
    found = image_metrics(batches(images, views), encoder=features)
    assert found.cosine == pytest.approx(float(expected), abs=1e-9)


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """FID's network with random weights, in a file as it is downloaded."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *arguments, **options):
            pass

    torch.manual_seed(0)
    torch.save({}, nothing := io.BytesIO())
    nothing.seek(0)
    network = Random("inception-v3-compat", ["2048"], nothing)
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    return path, network


def test_inception_is_torch_fidelitys(inception):
    path, network = inception
    images, _ = pairs(count=2, size=32)
    loaded = load_inception(path)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images)[0])
    assert "2048" in loaded.name and not any(part.training for part in loaded.modules())


def weighted_distance(network: nn.Module, images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """Zhang et al. 2018, eq. 1, layer by layer, from the AlexNet of torchvision and the published layer weights."""
    import torchmetrics.functional.image.lpips as origin

    folder = origin.__file__.replace("lpips.py", "lpips_models/alex.pth")
    weights = list(torch.load(folder, map_location="cpu", weights_only=True).values())
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total, maps = 0, []
    for each in (images, views):
        values = (2 * each.float() / 255 - 1 - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
        maps.append([])
        for place, layer in enumerate(network.features):
            values = layer(values)
            if place in (1, 4, 7, 9, 11):
                maps[-1].append(values / (values.square().sum(1, keepdim=True) + 1e-8).sqrt())
    for one, two, weight in zip(*maps, weights, strict=True):
        total = total + ((one - two).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return total


def save_features(network: nn.Module, path) -> None:
    """A tenth of the file: LPIPS needs no classifier."""
    torch.save({name: value for name, value in network.state_dict().items() if name.startswith("features.")}, path)


def test_lpips_is_the_formula_for_each_kind_of_file(tmp_path):
    import torchvision

    images, views = pairs(count=3, size=64)
    torch.manual_seed(0)
    network = torchvision.models.alexnet(weights=None).eval()
    save_features(network, tmp_path / "alexnet.pth")
    found = image_metrics(batches(images, views, 2), lpips=load_lpips(tmp_path / "alexnet.pth"))
    with torch.no_grad():
        expected = weighted_distance(network, images, views)
    assert found.lpips == pytest.approx(float(expected.mean()), rel=1e-5) and found.lpips_network == "LPIPS 0.1 alex"
    squeeze = torchvision.models.squeezenet1_1(weights=None)
    save_features(squeeze, tmp_path / "squeeze.pth")
    loaded = load_lpips(tmp_path / "squeeze.pth")
    assert loaded.name == "LPIPS 0.1 squeeze"
    assert torch.equal(loaded.network.net.slices[0][0].weight, squeeze.features[0].weight)
    assert torch.equal(loaded.network.net.slices[6][0].expand3x3.weight, squeeze.features[12].expand3x3.weight)


def test_views_are_timed_one_at_a_time_and_their_maker_counted():
    images, views = pairs()
    calls = []

    class Maker(nn.Linear):
        def forward(self, image):
            calls.append(image.shape)
            return image

    found = image_metrics(batches(images, views), make_view=Maker(3, 4), timed=10)
    assert set(calls) == {(1, 3, 16, 16)} and 10 <= len(calls) <= 15
    assert 0 < found.milliseconds < 1000 and found.parameters == 16
    told = {result.metric: result for result in found.results(recipe="noise", views="v", data="d", seconds=1.0)}
    assert sorted(told) == ["milliseconds", "parameters", "ssim"] and told["ssim"].protocol == "40 pairs"


def test_parameters_are_counted_once_wherever_they_are_held():
    class Holder:
        def __init__(self):
            self.first = nn.Linear(2, 2)
            self.parts = {"same": self.first, "other": [nn.Linear(3, 1)]}
            self.itself = self

    assert count_parameters(Holder()) == 6 + 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "at least one pair, .* got 0"),
        ([(torch.zeros(1, 3, 8, 8, dtype=torch.uint8),) * 2], "two for FID, got 1"),
        ([(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))], "uint8"),
        ([(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 3, 9, 9, dtype=torch.uint8))], "one size"),
        ([(torch.zeros(2, 3, 4, 4, dtype=torch.uint8),) * 2], "at least 6 x 6 pixels"),
    ],
)
def test_pairs_that_cannot_be_compared_are_named(given, says):
    with pytest.raises(ValueError, match=says) as told:
        image_metrics(given, fid=small_features())
    assert "\n" not in str(told.value)


def test_files_that_hold_no_such_network_are_named(tmp_path):
    class Code:
        def __reduce__(self):
            return (math.sqrt, (4,))

    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    torch.save({"a": Code()}, tmp_path / "code.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    for load in (load_inception, load_lpips):
        says = {
            "missing": "expected weights at",
            "other": "use https://",
            "code": "expected a file of weights",
            "broken": "expected a file of weights",
        }
        for name, text in says.items():
            with pytest.raises(ValueError, match=re.escape(text)) as told:
                load(tmp_path / f"{name}.pth")
            assert "\n" not in str(told.value) and "https://" in str(told.value)


def test_features_that_are_no_vectors_are_named():
    images, views = pairs(count=4)
    with pytest.raises(ValueError, match=r"one vector per image from .* for FID"):
        image_metrics(batches(images, views), fid=lambda each: each.float())
