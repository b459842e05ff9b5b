import pytest
import torch
from torch import nn

from ssl_eval import Features, extract_features


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 3


def test_features_are_those_of_the_backbone_in_evaluation_mode_and_every_mode_is_restored():
    net, (pixels, labels) = backbone().train(), images(10)
    net[1].eval()
    statistics = net[1].running_mean.clone()
    found = extract_features(net, zip(pixels.split(4), labels.split(4), strict=True))
    assert net.training and net[0].training and not net[1].training
    torch.testing.assert_close(net[1].running_mean, statistics, rtol=0, atol=0)
    torch.testing.assert_close(found.features, net.eval()(pixels).detach())
    assert found.labels.tolist() == labels.tolist() and not found.features.requires_grad


def test_modes_are_restored_after_a_failure():
    net = backbone().train()
    with pytest.raises(RuntimeError):
        extract_features(net, [(torch.zeros(2, 5, 8, 8), torch.zeros(2, dtype=torch.long))])
    assert all(part.training for part in net.modules())


def test_autocast_and_half_storage():
    net, (pixels, labels) = backbone(), images(6)
    exact = extract_features(net, [(pixels, labels)])
    rough = extract_features(net, [(pixels, labels)], amp=torch.bfloat16, dtype=torch.float16)
    assert rough.features.dtype == torch.float16
    difference = (rough.features.float() - exact.features).abs().max()
    assert 0 < difference < 0.05


def test_an_index_sorts_and_drops_duplicates():
    net, (pixels, labels) = backbone(), images(9)
    index = torch.tensor([4, 0, 8, 2, 6, 1, 3, 5, 7, 0, 4])
    found = extract_features(net, [(pixels[i], labels[i], i) for i in index.split(3)])
    expected = extract_features(net, [(pixels, labels)])
    torch.testing.assert_close(found.features, expected.features)
    assert found.labels.tolist() == labels.tolist()


def test_saved_features_come_back(tmp_path):
    features = Features(torch.randn(5, 4).half(), torch.tensor([0, 1, 2, 1, 0]))
    features.save(tmp_path / "a.safetensors")
    again = Features.load(tmp_path / "a.safetensors")
    assert torch.equal(again.features, features.features) and torch.equal(again.labels, features.labels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_mistakes_are_named(tmp_path):
    labels = torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="NaN"):
        Features(torch.tensor([[0.0], [torch.nan], [1.0]]), labels)
    with pytest.raises(ValueError, match="NaN"):
        Features(torch.tensor([[0.0], [-torch.inf], [1.0]]), labels)
    with pytest.raises(ValueError, match="labels of 0 or more"):
        Features(torch.zeros(3, 1), labels - 1)
    with pytest.raises(ValueError, match="expected one or more images"):
        extract_features(backbone(), [])
    with pytest.raises(ValueError, match="pool them"):
        extract_features(nn.Conv2d(3, 4, 3), [images(2)])
    with pytest.raises(ValueError, match="expected features at"):
        Features.load(tmp_path / "missing")
    (tmp_path / "text").write_text("not features")
    with pytest.raises(ValueError, match="does not contain"):
        Features.load(tmp_path / "text")
