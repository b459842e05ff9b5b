"""Latent diffusion: a given autoencoder, its images encoded once, and what is learned from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, VQModel

from viewgen import eldm, read_image
from viewgen.eldm import ELDMGenerator, cache_latents, train_eldm

SHAPE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "latent_channels": 4,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder of an autoencoder from elsewhere, by kind."""

    def save(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        module = AutoencoderKL(**SHAPE) if kind == "kl" else VQModel(**SHAPE, num_vq_embeddings=16)
        module.save_pretrained(folder)
        return folder

    return {kind: save(kind) for kind in ("kl", "vq")}


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, latents=True, patch=1, prediction="epsilon", add_to_time_embedding=False, steps=3)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_an_autoencoder_from_elsewhere(images, embeddings, config, given, tmp_path, kind):
    folder = train_eldm(images, embeddings, tmp_path, config, autoencoder=given[kind])
    vectors = torch.from_numpy(embeddings.vectors[:3].astype("float32"))
    views = ELDMGenerator(folder, steps=2).generate(vectors, seeds=[1, 2, 3])
    assert views.shape == (3, 3, 16, 16)
    alone = torch.cat([ELDMGenerator(folder, steps=2).generate(vectors[i : i + 1], seeds=[i + 1]) for i in range(3)])
    if kind == "kl":  # a VQModel rounds to the nearest code, and what lies between two codes goes either way
        assert (views.int() - alone.int()).abs().max() <= 1
    rough = ELDMGenerator(folder, steps=2, dtype="bfloat16").generate(vectors, seeds=[1, 2, 3])
    assert 0 < (rough.float() - views.float()).abs().mean() < 10
    assert UNet2DConditionModel.from_pretrained(folder / "unet").config.in_channels == 4
    coder = eldm.Autoencoder.load(folder / "vae")
    assert coder.hash == eldm.Autoencoder.load(given[kind]).hash
    assert str(given[kind]) not in (folder / "vae" / "config.json").read_text()
    assert coder.encode(views).shape == (3, *coder.latent_shape(16))


def test_a_cached_latent_is_what_the_autoencoder_gives(images, embeddings, given, tmp_path):
    coder = eldm.Autoencoder.load(given["kl"])
    seen = []
    latents = cache_latents(
        images,
        embeddings.keys,
        tmp_path,
        coder,
        resolution=16,
        shard_rows=4,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(4, 14), (8, 14), (12, 14), (14, 14)]
    for row in (0, 3, 4, 13):
        image = read_image(images / embeddings.keys[row])
        for mirrored in (False, True):
            expected = coder.encode((image.flip(2) if mirrored else image)[None])[0]
            found = latents.read(row, mirrored)
            assert found.dtype == torch.float16
            torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)


def test_only_missing_shards_are_encoded(images, embeddings, given, tmp_path):
    coder = eldm.Autoencoder.load(given["kl"])
    options = {"resolution": 16, "shard_rows": 4}
    folder = cache_latents(images, embeddings.keys, tmp_path, coder, **options).folder
    written = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    assert sorted(written) == [f"{start:012d}.npy" for start in (0, 4, 8, 12)]
    (folder / "000000000004.npy").unlink()
    seen = []
    cache_latents(
        images, embeddings.keys, tmp_path, coder, **options, on_progress=lambda *progress: seen.append(progress)
    )
    assert seen == [(4, 4)]
    assert {path.name: path.read_bytes() for path in folder.glob("*.npy")} == written
    assert not list(folder.glob("*.tmp"))
    other = cache_latents(images, embeddings.keys, tmp_path, coder, **options, flip=False)
    assert other.folder != folder
    assert torch.equal(other.read(5, False), torch.from_numpy(np.load(folder / "000000000004.npy")[1, 0]))


def test_training_on_cached_latents_is_training_on_encoded_images(images, embeddings, config, given, tmp_path):
    losses = {}
    for cached in (True, False):
        losses[cached] = []
        train_eldm(
            images,
            embeddings,
            tmp_path / str(cached),
            config,
            autoencoder=given["kl"],
            latents_cached=cached,
            on_step=lambda step, total, metrics, of=losses[cached]: of.append(metrics["loss"]),
        )
        assert (tmp_path / str(cached) / "latents").exists() == cached
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    straight = replace(config, flip=False)
    other = []
    train_eldm(
        images,
        embeddings,
        tmp_path / "straight",
        straight,
        autoencoder=given["kl"],
        on_step=lambda step, total, metrics: other.append(metrics["loss"]),
    )
    assert other != pytest.approx(losses[True], rel=1e-3)


def test_mistakes_get_one_clear_line(images, embeddings, config, tiny_config, given, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="AutoencoderKL, AutoencoderTiny, TAEF2, VQModel"):
        eldm.Autoencoder.load(tmp_path)
    with pytest.raises(ValueError, match=r"expected an autoencoder .* give its folder"):
        train_eldm(images, embeddings, tmp_path / "none", config)
    with pytest.raises(ValueError, match="expected no autoencoder"):
        train_eldm(images, embeddings, tmp_path / "none", tiny_config, autoencoder=given["kl"])
    monkeypatch.setattr("genviews_core.disk.shutil.disk_usage", lambda path: type("Disk", (), {"free": 10}))
    with pytest.raises(ValueError, match="latents_cached=False"):
        train_eldm(images, embeddings, tmp_path / "full", config, autoencoder=given["kl"])


def test_another_autoencoder_of_the_same_shape_is_another_training(images, embeddings, config, given, tmp_path):
    train_eldm(images, embeddings, tmp_path / "model", config, autoencoder=given["kl"])
    other = AutoencoderKL.from_pretrained(given["kl"])
    other.quant_conv.weight.data += 1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="autoencoder was"):
        train_eldm(images, embeddings, tmp_path / "model", config, autoencoder=tmp_path / "other")


def test_latents_that_float16_cannot_hold_name_the_image(images, embeddings, given, tmp_path):
    config = json.loads((given["kl"] / "config.json").read_text())
    coder = AutoencoderKL.from_config(config | {"scaling_factor": 1e9})
    with pytest.raises(ValueError, match=r"finite in float16, got infinity or NaN for 'even/000.png'"):
        cache_latents(images, embeddings.keys, tmp_path, eldm.Autoencoder(coder), resolution=16)
