"""Tiny pretrained autoencoders, whose latents have to be standardized."""

import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file, save_file

from viewgen import eldm, read_image
from viewgen.eldm import Autoencoder, ELDMGenerator, train_eldm
from viewgen.eldm.taesd import TAEF2

DATA = Path(__file__).parents[4] / "shared/data"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folders of untrained autoencoders, by kind."""
    tiny, taef2 = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("taef2")
    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    depth = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(**blocks, **depth).save_pretrained(tiny)
    model = TAEF2()
    for part in ("encoder", "decoder"):
        state = {name: value.half() for name, value in getattr(model, part).state_dict().items()}
        torch.save(state, taef2 / f"taef2_{part}.pth")
    return {"tiny": tiny, "taef2": taef2}


@pytest.mark.parametrize(("kind", "shape"), [("tiny", (4, 8, 8)), ("taef2", (32, 2, 2))])
def test_latents_are_standardized_and_the_folder_is_self_contained(
    images, embeddings, tiny_config, given, tmp_path, kind, shape
):
    config = replace(tiny_config, latents=True, network="dit", width=16, depth=1, heads=2, patch=1, steps=3, flip=False)
    folder = train_eldm(images, embeddings, tmp_path / "model", config, autoencoder=given[kind])
    model = eldm.load_model(folder)
    assert model.autoencoder.latent_shape(16) == shape
    pixels = torch.stack([read_image(images / key) for key in embeddings.keys])
    latents = model.autoencoder.encode(pixels)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(shape[0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), unbiased=False), torch.ones(shape[0]), rtol=0, atol=1e-3)
    cached = np.load(next((folder / "latents").rglob("*.npy")))
    torch.testing.assert_close(torch.from_numpy(cached[:, 0]).float(), latents, rtol=2e-3, atol=2e-3)
    plain = Autoencoder.load(given[kind])
    expected = plain.module.decode(plain.module.encode(pixels.float() / 127.5 - 1).latents).sample
    expected = ((expected.detach().clamp(-1, 1) + 1) * 127.5).round()
    assert (model.autoencoder.decode(latents).float() - expected).abs().max() <= 1
    assert model.autoencoder.hash == plain.hash
    assert (folder / "vae/diffusion_pytorch_model.safetensors").is_file()
    views = ELDMGenerator(folder, steps=2).generate(torch.ones(2, 12), seeds=[1, 2])
    assert views.shape == (2, 3, 16, 16)


def test_an_interrupted_training_goes_on_with_the_same_statistics(images, embeddings, tiny_config, given, tmp_path):
    config = replace(tiny_config, latents=True, network="dit", width=16, depth=1, heads=2, patch=1, steps=3)

    def stop(step, total, metrics):
        raise KeyboardInterrupt

    options = {"autoencoder": given["tiny"], "checkpoint_seconds": 0.0}
    whole = train_eldm(images, embeddings, tmp_path / "whole", config, **options)
    with pytest.raises(KeyboardInterrupt):
        train_eldm(images, embeddings, tmp_path / "parts", config, on_step=stop, **options)
    parts = train_eldm(images, embeddings, tmp_path / "parts", config, **options)
    files = {path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".safetensors", ".json", ".npy")}
    assert Path("vae/latent_statistics.safetensors") in files
    assert all((whole / file).read_bytes() == (parts / file).read_bytes() for file in files)
    assert len(list((parts / "latents").iterdir())) == 1


def test_taef2_is_read_from_either_format_and_checked(given, tmp_path):
    hashes = {Autoencoder.load(given["taef2"]).hash}
    for part in ("encoder", "decoder"):
        state = torch.load(given["taef2"] / f"taef2_{part}.pth", weights_only=True)
        save_file(state, tmp_path / f"taef2_{part}.safetensors")
    hashes.add(Autoencoder.load(tmp_path).hash)
    assert len(hashes) == 1
    state = load_file(tmp_path / "taef2_encoder.safetensors")
    wrong = tmp_path / "taef2_encoder.safetensors"
    save_file(state | {"0.weight": torch.zeros(1), "extra": torch.zeros(1)}, wrong)
    with pytest.raises(ValueError, match=r"TAEF2's encoder: 2 of \d+ tensors .* \(0.weight, extra\)") as caught:
        Autoencoder.load(tmp_path)
    assert "\n" not in str(caught.value)
    wrong.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no file of tensors"):
        Autoencoder.load(tmp_path)


@pytest.mark.skipif(not (DATA / "taef2").is_dir(), reason="the weights of TAEF2 are not beside this checkout")
def test_photographs_survive_the_real_taef2():
    autoencoder, errors = Autoencoder.load(DATA / "taef2"), []
    with tarfile.open(DATA / "ecssd-300.tar") as archive:
        members = [member for member in archive if member.name.endswith(".jpg")][::60]
        for member in members:
            file = archive.extractfile(member)
            assert file is not None
            image = Image.open(BytesIO(file.read())).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            autoencoder.statistics = None
            autoencoder.measure([pixels])
            latents = autoencoder.encode(pixels)
            assert latents.shape == (1, 32, 32, 32)
            errors.append((autoencoder.decode(latents).float() - pixels.float()).square().mean().item())
    assert len(errors) == 5
    decibels = [10 * np.log10(255**2 / error) for error in errors]
    assert np.mean(decibels) >= 27
