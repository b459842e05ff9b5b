"""The SwAV features that IC-GAN is conditioned on.

The official numbers are of facebookresearch/ic_gan@8eff2f7: ``preprocess_input_image`` of predict.py and the
preparation of data_utils/make_hdf5.py on ``picture``, and ``load_pretrained_feature_extractor`` of data_utils/utils.py
with the weights of ``swav_tensors``.
"""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from viewgen.icgan import FeatureExtractor, ICGANConfig, ICGANGenerator, load_resnet50
from viewgen.icgan.checkpoint import checkpoint_shapes
from viewgen.icgan.features import central_square, enlarge

# (height, width, side): red, green, blue at (0, 0), (75, 180), (223, 100); every 256th of the features.
DEMO = {
    (300, 401, 256): (
        [[-1.227417, 0.257703, 0.879652], [0.702384, 2.115855, 2.101639], [1.755871, -1.73672, 0.598898]],
        [0.008318, 0.048034, 0.000275, 0.001904, 0.050525, 0.003912, 0.001451, 0.002565],
    ),
    (97, 64, 64): (
        [[2.197534, -0.127451, -1.560436], [2.218107, 1.973118, -1.466606], [2.147771, -1.966627, 0.733898]],
        [0.010987, 0.047473, 0.000838, 0.0026, 0.047769, 0.00285, 0.001318, 0.001605],
    ),
}
TRAINING = {
    (300, 401, 256): [[-1.258015, 0.215414, 0.834752], [0.687416, 2.111687, 2.098166], [1.747607, -1.743643, 0.574647]],
    (97, 64, 64): [[2.219861, -0.051656, -1.606099], [2.202801, 1.930791, -1.480572], [2.146509, -1.974716, 0.696428]],
}


def uniform(shape: tuple[int, ...], k: int) -> Tensor:
    """Numbers in [-1, 1) that any program can make again."""
    index = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    values = np.sin(index * 12.9898 + k * 78.233) * 43758.5453
    return torch.from_numpy(2 * (values - np.floor(values)) - 1).float().reshape(shape)


def resnet_value(name: str, shape: tuple[int, ...], k: int) -> Tensor:
    values = uniform(shape, k)
    if len(shape) == 4:
        return values * (3 / (shape[1] * shape[2] * shape[3])) ** 0.5
    if name.endswith("running_var"):
        return 1 + 0.5 * values
    if name.endswith("weight"):
        return (1 + 0.5 * values) * (0.3 if "bn3" in name else 1)
    return 0.1 * values


def picture(height: int, width: int) -> Tensor:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / (5 + c) + rows / (9 - 2 * c) + c) for c in range(3)]
    return torch.from_numpy(np.stack([(127.5 * (1 + wave)).astype(np.uint8) for wave in waves]))


@pytest.fixture(scope="module")
def resnet_tensors() -> dict[str, Tensor]:
    with torch.device("meta"):
        own = timm.create_model("resnet50", num_classes=0).state_dict()
    names = sorted(name for name in own if not name.endswith("num_batches_tracked"))
    return {name: resnet_value(name, tuple(own[name].shape), k) for k, name in enumerate(names)}


@pytest.fixture(scope="module")
def swav(resnet_tensors, tmp_path_factory) -> Path:
    """As SwAV saves it: wrapped for several devices, with the projection head and the prototypes."""
    heads = {"projection_head.0.weight": torch.zeros(3, 2), "prototypes.weight": torch.zeros(4, 2)}
    counters = {"bn1.num_batches_tracked": torch.tensor(7)}
    path = tmp_path_factory.mktemp("swav") / "swav_800ep_pretrain.pth.tar"
    torch.save({f"module.{name}": tensor for name, tensor in {**resnet_tensors, **heads, **counters}.items()}, path)
    return path


def prepare(image: Tensor, side: int, align_corners: bool = True) -> Tensor:
    return enlarge(central_square(image, side)[None], align_corners=align_corners)


@pytest.mark.parametrize("case", DEMO)
def test_images_are_prepared_as_officially(case):
    height, width, side = case
    for align_corners, expected in ((True, DEMO[case][0]), (False, TRAINING[case])):
        prepared = prepare(picture(height, width), side, align_corners)
        found = torch.stack([prepared[0, :, row, column] for row, column in ((0, 0), (75, 180), (223, 100))])
        torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


def test_features_are_the_official_ones(swav):
    for (height, width, size), (_, expected) in DEMO.items():
        features = FeatureExtractor(swav, size=size)(picture(height, width)[None])
        assert features.shape == (1, 2048)
        assert float(features.norm()) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(features[0, ::256], torch.tensor(expected), rtol=0, atol=1e-5)


def test_a_folder_with_safetensors_serves_as_well(swav, resnet_tensors, tmp_path):
    save_file({**resnet_tensors, "fc.weight": torch.zeros(5, 2048)}, tmp_path / "backbone.safetensors")
    one, other = load_resnet50(swav), FeatureExtractor(tmp_path, size=64).network
    image = prepare(picture(70, 70), 64)
    torch.testing.assert_close(other(image), one(image), rtol=0, atol=1e-5)
    (tmp_path / "more.safetensors").touch()
    with pytest.raises(ValueError, match=r"expected one .safetensors file in .*, got 2"):
        FeatureExtractor(tmp_path, size=64)


def test_misfits_are_named(resnet_tensors, tmp_path):
    held = {**resnet_tensors, "stray": torch.zeros(1), "bn1.bias": torch.zeros(3)}
    del held["layer4.2.conv3.weight"]
    torch.save(held, tmp_path / "broken.pth")
    message = r"1 missing \(layer4.2.conv3.weight\); 1 unknown \(stray\); 1 mismatched \(bn1.bias"
    with pytest.raises(ValueError, match=message):
        load_resnet50(tmp_path / "broken.pth")


def test_from_images_to_views(swav, tmp_path):
    config = ICGANConfig(channels=(16, 16, 16, 16, 16), attention=(), chunk=4, embedded=8)
    draws = torch.Generator().manual_seed(0)
    shapes = checkpoint_shapes(config).items()
    torch.save({name: torch.rand(shape, generator=draws) for name, shape in shapes}, tmp_path / "G_ema_best0.pth")
    generator = ICGANGenerator(weights=tmp_path, features=swav)
    images = torch.stack([picture(80, 120), picture(80, 120).flip(2)])
    conditions = generator.condition(images)
    torch.testing.assert_close(conditions[1:], generator.condition(images[1:]), rtol=0, atol=1e-6)
    torch.testing.assert_close(conditions, FeatureExtractor(swav, size=64)(images), rtol=0, atol=1e-6)
    prepared = torch.stack([generator.prepare(image) for image in images])
    assert prepared.shape == (2, 3, 64, 64)
    assert torch.equal(generator.encode(prepared), conditions)
    assert generator.generate(conditions, seeds=[1, 2]).shape == (2, 3, 64, 64)
    assert generator.encoder_hash == generator.settings["encoder_hash"] != generator.model_hash
