"""The diffusion transformer: its network, its training and its views."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from viewgen import eldm, list_images, read_image, view_seed
from viewgen.eldm import ELDMGenerator, train_eldm
from viewgen.eldm.dit import EmbeddingDiT, rotary_tables, rotated
from viewgen.eldm.model import folder_hash

SEEDS = [view_seed(0, "k", k) for k in range(14)]


def randomized(network):
    """Weights drawn anew, so that the gates are open."""
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return network.eval()


@pytest.fixture
def config(tiny_config):
    return replace(tiny_config, network="dit", width=32, depth=2, heads=2, patch=4, channels=(), attention=())


@pytest.fixture(scope="module")
def trained_dit(images, embeddings, tmp_path_factory):
    config = eldm.ELDMConfig(
        resolution=16, network="dit", width=32, depth=2, heads=2, patch=4, prediction="sample", flip=False, steps=200,
        batch_size=4, learning_rate=5e-3, warmup_steps=2, beta_schedule="squaredcos_cap_v2", ema_decay=0.98,
    )  # fmt: skip
    return train_eldm(images, embeddings, tmp_path_factory.mktemp("dit"), config)


@pytest.fixture(scope="module")
def vectors(embeddings):
    return torch.from_numpy(embeddings.vectors.astype("float32"))


@torch.no_grad()
def test_it_predicts_zero_before_training_and_sees_time_and_condition_after(config):
    denoiser = eldm.build_denoiser(config, 12, 3, 16).eval()
    noisy, timesteps, embedded = torch.randn(2, 3, 16, 16), torch.tensor([10, 700]), torch.randn(2, 12)
    assert torch.equal(denoiser(noisy, timesteps, embedded), torch.zeros_like(noisy))
    randomized(denoiser)
    out = denoiser(noisy, timesteps, embedded)
    assert out.shape == noisy.shape
    for other in (
        denoiser(noisy, timesteps.flip(0), embedded),
        denoiser(noisy, timesteps, embedded.flip(0)),
        denoiser(noisy, timesteps, torch.zeros_like(embedded)),
    ):
        assert (other - out).abs().max() > 0.01


@torch.no_grad()
def test_a_patch_is_one_token(config):
    denoiser = randomized(eldm.build_denoiser(config, 12, 3, 16))
    noisy, timesteps, embedded = torch.randn(2, 3, 16, 16), torch.tensor([10, 700]), torch.randn(2, 12)
    folded = denoiser.network(pixel_unshuffle(noisy, 4), timesteps, denoiser.condition(embedded)[:, 0]).sample
    torch.testing.assert_close(denoiser(noisy, timesteps, embedded), pixel_shuffle(folded, 4))
    assert denoiser.network.position.shape == (1, 16, 32)
    for patch in (1, 2, 8):
        other = randomized(eldm.build_denoiser(replace(config, patch=patch), 12, 3, 16))
        assert other(noisy, timesteps, embedded).shape == noisy.shape
    with pytest.raises(ValueError, match="multiple of patch 3"):
        replace(config, patch=3)
    with pytest.raises(ValueError, match="multiple of 4 x 3 heads, got 32"):
        replace(config, heads=3)


@torch.no_grad()
def test_an_image_alone_and_in_a_batch(config):
    network = randomized(EmbeddingDiT(channels=4, side=4, width=32, depth=2, heads=2))
    sample, timesteps, condition = torch.randn(5, 4, 4, 4), torch.arange(0, 1000, 200), torch.randn(5, 32)
    together = network(sample, timesteps, condition).sample
    alone = [network(sample[i : i + 1], timesteps[i : i + 1], condition[i : i + 1]).sample for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_rotary_products_depend_on_the_distance_alone():
    cos, sin = rotary_tables(4, 8)
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    queries, keys = (rotated(vector.expand(1, 1, 16, 8), cos, sin)[0, 0] for vector in (query, key))
    products = (queries @ keys.T).view(4, 4, 4, 4)  # by row and column of the query, row and column of the key
    torch.testing.assert_close(products[0, 1, 2, 2], products[1, 2, 3, 3])
    assert (products[0, 1, 2, 2] - products[0, 1, 2, 3]).abs() > 1e-3
    torch.testing.assert_close(products[2, 2, 2, 2], query @ key)


@torch.no_grad()
def test_autocast_warns_of_nothing_and_stays_close():
    network = randomized(EmbeddingDiT(channels=4, side=4, width=32, depth=2, heads=2))
    arguments = torch.randn(3, 4, 4, 4), torch.tensor([0, 500, 999]), torch.randn(3, 32)
    exact = network(*arguments).sample
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("error")
        rough = network(*arguments).sample
    assert rough.dtype is torch.bfloat16
    assert 0 < (rough.float() - exact).abs().mean() < 0.05 * exact.std()


def test_training_learns_and_uses_the_condition(images, embeddings, vectors, trained_dit):
    sources = torch.stack([read_image(images / key) for key in embeddings.keys]).float()
    views = ELDMGenerator(trained_dit, guidance=2.0).generate(vectors, seeds=SEEDS).float()
    errors = (views[:, None] - sources[None]).square().mean(dim=(2, 3, 4))
    assert errors.diag().mean() < 0.9 * errors.mean()


def test_the_folder_is_whole(trained_dit, vectors, tmp_path):
    index = json.loads((trained_dit / "model_index.json").read_text())
    assert index["transformer"] == ["viewgen.eldm", "EmbeddingDiT"]
    assert "unet" not in index
    generator = ELDMGenerator(trained_dit, steps=4)
    views = generator.generate(vectors, seeds=SEEDS)
    assert torch.equal(views, ELDMGenerator(trained_dit, steps=4).generate(vectors, seeds=SEEDS))
    rough = ELDMGenerator(trained_dit, steps=4, dtype="bfloat16").generate(vectors, seeds=SEEDS)
    assert 0 < (views.float() - rough.float()).abs().mean() < 6
    weights = trained_dit / "transformer" / "diffusion_pytorch_model.safetensors"
    before, content = folder_hash(trained_dit), weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert folder_hash(trained_dit) != before
    weights.write_bytes(content)
    assert folder_hash(trained_dit) == before


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_resume_is_bit_identical(images, embeddings, config, tmp_path, compiled):
    def stop(step, total, metrics):
        if step == 4:
            raise KeyboardInterrupt

    config = replace(config, bf16=compiled)
    whole = train_eldm(images, embeddings, tmp_path / "whole", config, compile=compiled)
    parts, seen = tmp_path / "parts", []
    with pytest.raises(KeyboardInterrupt):
        train_eldm(images, embeddings, parts, config, on_step=stop, checkpoint_seconds=0.0, compile=compiled)
    train_eldm(images, embeddings, parts, config, on_step=lambda step, *_: seen.append(step), compile=compiled)
    assert seen == [4, 5, 6]
    for name in ("transformer/diffusion_pytorch_model.safetensors", "condition/model.safetensors", "training.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    with pytest.raises(ValueError, match="depth was 2, now 3"):
        train_eldm(images, embeddings, whole, replace(config, depth=3))


def test_views_from_the_image_are_closer_with_less_noise(images, trained_dit, tiny_encoder):
    pixels = torch.stack([read_image(images / key) for key in list_images(images)])
    generator = ELDMGenerator(trained_dit, tiny_encoder, from_image=True, steps=4, guidance=1.5)
    condition = generator.condition(pixels)
    views = [generator.generate(condition, seeds=SEEDS, strength=torch.full((14,), s)) for s in (0.1, 0.9)]
    near, far = ((view.float() - pixels.float()).abs().mean() for view in views)
    assert 0 < near < far


def test_guidance_in_an_interval(trained_dit, vectors, tiny_encoder, images):
    def views(**options):
        return ELDMGenerator(trained_dit, steps=5, **options).generate(vectors, seeds=SEEDS)

    assert torch.equal(views(guidance=3.0, guidance_interval=(0.0, 1.0)), views(guidance=3.0))
    limited = views(guidance=3.0, guidance_interval=(0.3, 0.7))
    assert (limited.int() - views(guidance=3.0).int()).abs().max() > 5
    assert (limited.int() - views(guidance=1.0).int()).abs().max() > 5
    assert torch.equal(views(guidance=3.0, guidance_interval=(0.0, 0.0001)), views(guidance=1.0))
    assert "guidance_interval" not in ELDMGenerator(trained_dit).settings
    assert ELDMGenerator(trained_dit, guidance_interval=(0.3, 0.7)).settings["guidance_interval"] == [0.3, 0.7]
    with pytest.raises(ValueError, match=r"expected a guidance_interval \(low, high\) in \[0, 1\], got \(0.7, 0.3\)"):
        ELDMGenerator(trained_dit, guidance_interval=(0.7, 0.3))
    options = {"from_image": True, "steps": 4, "guidance": 3.0, "guidance_interval": (0.3, 0.7)}
    generator = ELDMGenerator(trained_dit, tiny_encoder, **options)
    pixels = torch.stack([read_image(images / key) for key in list_images(images)])
    condition, strength = generator.condition(pixels), torch.linspace(0.1, 1, 14)
    together = generator.generate(condition, seeds=SEEDS, strength=strength)
    alone = [
        generator.generate(condition[i : i + 1], seeds=SEEDS[i : i + 1], strength=strength[i : i + 1])
        for i in range(14)
    ]
    assert (together.int() - torch.cat(alone).int()).abs().max() <= 1
