"""IC-GAN's network and checkpoints.

The official numbers are of facebookresearch/ic_gan@8eff2f7, BigGAN_PyTorch/BigGAN.py, in evaluation with the
configuration config_files/ImageNet/IC-GAN/icgan_res*.json, G_ch = 8 and the tensors, noise and features of ``uniform``.
"""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from viewgen.icgan import ICGAN, ICGANConfig, load_icgan
from viewgen.icgan.checkpoint import checkpoint_shapes, fold_spectral_norms

MULTIPLES = {64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}
# The first two images' red, green and blue at (0, 0), (R // 3, R // 5) and (R - 1, R // 2), and all values' deviation.
OFFICIAL = {
    64: (
        [[0.262337, 0.118643, -0.004756], [0.266452, 0.206205, -0.118169]],
        [[0.309707, -0.101301, -0.511539], [0.513406, -0.028203, -0.503082]],
        [[0.180005, 0.116956, -0.300692], [0.287027, 0.013897, -0.280175]],
        0.373478,
    ),
    128: (
        [[-0.056394, -0.136526, 0.067688], [-0.114869, -0.064363, -0.005384]],
        [[-0.149545, -0.219861, 0.117428], [-0.124243, -0.122132, -0.010697]],
        [[-0.348406, -0.158712, 0.012679], [-0.168014, -0.131762, 0.049936]],
        0.116661,
    ),
    256: (
        [[0.009628, 0.133579, -0.057888], [-0.063063, 0.052049, -0.011437]],
        [[0.001301, 0.041871, -0.042151], [0.281477, -0.181533, 0.137863]],
        [[0.051276, 0.000514, -0.091553], [0.153642, -0.151002, -0.09008]],
        0.131077,
    ),
}


def uniform(shape: tuple[int, ...], k: int) -> Tensor:
    """Numbers in [-1, 1) that any program can make again."""
    index = np.arange(1, int(np.prod(shape)) + 1, dtype=np.float64)
    values = np.sin(index * 12.9898 + k * 78.233) * 43758.5453
    return torch.from_numpy(2 * (values - np.floor(values)) - 1).float().reshape(shape)


def official_value(name: str, shape: tuple[int, ...], k: int) -> Tensor:
    if name.endswith("sv0"):
        return torch.ones(shape)
    if name.endswith("gamma"):
        return torch.tensor(0.7)
    if name.endswith(("stored_var", "output_layer.0.gain")):
        return 1 + 0.5 * uniform(shape, k)
    small = len(shape) == 1 and name.endswith(("stored_mean", "bias"))
    return uniform(shape, k) * (0.1 if small else 1)


def config_of(resolution: int, width: int = 8) -> ICGANConfig:
    multiples = MULTIPLES[resolution]
    attention = {64: 2, 128: 3, 256: 3}[resolution]
    chunk = 120 // len(multiples)  # --dim_z of the official code
    return ICGANConfig(channels=tuple(width * item for item in multiples), attention=(attention,), chunk=chunk)


def official_tensors(resolution: int) -> dict[str, Tensor]:
    shapes = sorted(checkpoint_shapes(config_of(resolution)).items())
    return {name: official_value(name, shape, k) for k, (name, shape) in enumerate(shapes)}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return official_tensors(64)


@pytest.fixture
def weights(tensors, tmp_path) -> Path:
    torch.save(tensors, tmp_path / "G_ema_best0.pth")
    return tmp_path / "G_ema_best0.pth"


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_the_network_gives_the_official_numbers(resolution, tmp_path):
    torch.save(official_tensors(resolution), tmp_path / "G_ema_best0.pth")
    network = load_icgan(tmp_path)
    assert isinstance(network, ICGAN)
    assert network.config == config_of(resolution)
    noise, features = 1.4 * uniform((2, network.config.dim_z), 1000), uniform((2, 2048), 1001)
    images = network(noise, features / features.norm(dim=1, keepdim=True))
    assert images.shape == (2, 3, resolution, resolution)
    *pixels, deviation = OFFICIAL[resolution]
    places = (0, 0), (resolution // 3, resolution // 5), (resolution - 1, resolution // 2)
    for (row, column), expected in zip(places, pixels, strict=True):
        torch.testing.assert_close(images[:, :, row, column], torch.tensor(expected), rtol=0, atol=1e-5)
    assert abs(float(images.std()) - deviation) < 1e-5


def test_the_published_256_px_model_has_198_tensors_and_90014340_parameters():
    shapes = checkpoint_shapes(config_of(256, width=96))
    buffers = (".u0", ".sv0", ".stored_mean", ".stored_var")
    assert len(shapes) == 198
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.endswith(buffers)) == 90_014_340
    assert config_of(256, width=96).dim_z == 119


def test_a_folded_weight_has_spectral_norm_one_where_u_is_its_first_singular_vector():
    weight = uniform((6, 4, 3, 3), 0)
    first = torch.linalg.svd(weight.flatten(1)).U[:, 0]
    folded = fold_spectral_norms({"conv.weight": weight, "conv.u0": first[None], "conv.sv0": torch.ones(1)})
    assert folded.keys() == {"conv.weight"}
    assert torch.linalg.matrix_norm(folded["conv.weight"].flatten(1), ord=2) == pytest.approx(1, abs=1e-5)


def test_the_class_embedding_is_not_kept_and_safetensors_serve_as_well(tensors, weights, tmp_path):
    save_file(tensors, tmp_path / "icgan.safetensors")
    one, other = load_icgan(weights).state_dict(), load_icgan(tmp_path / "icgan.safetensors").state_dict()
    assert "shared.weight" not in one
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def test_a_folder_gives_the_weights_of_lower_fid(tensors, tmp_path):
    other = {name: tensor * 2 if name == "linear.bias" else tensor for name, tensor in tensors.items()}
    for index, (held, fid) in enumerate(((tensors, 17.5), (other, 16.25))):
        torch.save(held, tmp_path / f"G_ema_best{index}.pth")
        torch.save({"best_FID": fid, "config": {"dim_z": 120}}, tmp_path / f"state_dict_best{index}.pth")
    assert torch.equal(load_icgan(tmp_path).linear.bias, other["linear.bias"])
    torch.save({"best_FID": 3.0}, tmp_path / "state_dict_best0.pth")
    assert torch.equal(load_icgan(tmp_path).linear.bias, tensors["linear.bias"])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, torch.tensor])
def test_a_folder_as_the_official_trainer_leaves_it(tensors, tmp_path, kind):
    """Its state has a FID as numpy or torch computed it, and in its configuration the activation, a module."""
    other = {name: tensor * 2 if name == "linear.bias" else tensor for name, tensor in tensors.items()}
    for index, (held, fid) in enumerate(((tensors, 17.5), (other, 16.25))):
        torch.save(held, tmp_path / f"G_ema_best{index}.pth")
        state = {"itr": 9, "best_FID": kind(fid), "config": {"G_activation": nn.ReLU(inplace=True), "dim_z": 120}}
        torch.save(state, tmp_path / f"state_dict_best{index}.pth")
    assert torch.equal(load_icgan(tmp_path).linear.bias, other["linear.bias"])


def test_a_fid_in_old_numpys_words_is_read(tensors, tmp_path):
    for index, fid in enumerate((17.5, 16.25)):
        torch.save({**tensors, "linear.bias": tensors["linear.bias"] + index}, tmp_path / f"G_ema_best{index}.pth")
        state = tmp_path / f"state_dict_best{index}.pth"
        torch.save({"best_FID": np.float64(fid)}, state, _use_new_zipfile_serialization=False)
        state.write_bytes(state.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(load_icgan(tmp_path).linear.bias, tensors["linear.bias"] + 1)


def test_a_folder_whose_fids_would_run_code_is_refused_with_the_way_out(tensors, tmp_path):
    for index in range(2):
        torch.save(tensors, tmp_path / f"G_ema_best{index}.pth")
        torch.save({"best_FID": Runs(tmp_path / "ran")}, tmp_path / f"state_dict_best{index}.pth")
    with pytest.raises(ValueError, match=r"give one file: .*state_dict_best0.pth: it calls"):
        load_icgan(tmp_path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "G_ema_best1.pth").unlink()
    assert load_icgan(tmp_path).config.resolution == 64


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_would_run_code_is_refused(tensors, tmp_path, zipped):
    path = tmp_path / "G_ema_best0.pth"
    held = {**tensors, "linear.bias": Runs(tmp_path / "ran")}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"of plain tensors, got .*G_ema_best0.pth: .*mkdir") as refusal:
        load_icgan(path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", pickle.dumps([1, 2], protocol=2)])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "G_ema_best0.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"G_ema_best0.pth") as refusal:
        load_icgan(path)
    assert "\n" not in str(refusal.value)


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read the weights .*none.pth: No such file"):
        load_icgan(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"expected a G_ema_best\*.pth"):
        load_icgan(tmp_path)


def test_every_kind_of_misfit_is_counted_and_named(tensors, tmp_path):
    held = {**tensors, "extra": torch.zeros(1), "blocks.1.0.conv2.bias": torch.zeros(3)}
    for name in ("blocks.1.0.conv2.u0", "blocks.0.0.bn2.stored_var", "shared.weight", "linear.sv0"):
        del held[name]
    torch.save(held, tmp_path / "a.pth")
    told = (
        r"4 missing \(blocks.0.0.bn2.stored_var, blocks.1.0.conv2.u0, linear.sv0\); 1 unknown \(extra\); "
        r"1 mismatched \(blocks.1.0.conv2.bias \(3,\) instead of \(64,\)\)"
    )
    with pytest.raises(ValueError, match=told):
        load_icgan(tmp_path / "a.pth")


def test_other_networks_are_told_apart(tensors, tmp_path):
    torch.save({name: tensor for name, tensor in tensors.items() if "shared_feat" not in name}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"an unconditional IC-GAN generator, got .* lacks shared_feat.weight"):
        load_icgan(tmp_path / "b.pth")
    wide = {
        name: torch.cat([tensor, tensor[:, :128]], dim=1) if name.endswith((".gain.weight", ".bias.weight")) else tensor
        for name, tensor in tensors.items()
    }
    torch.save(wide, tmp_path / "cc.pth")
    with pytest.raises(ValueError, match="class-conditional"):
        load_icgan(tmp_path / "cc.pth")
