"""The autoencoder that is trained on the images themselves."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from torch.nn.functional import interpolate

from viewgen import eldm, read_image
from viewgen.eldm import autoencoder_preset, train_autoencoder
from viewgen.eldm.autoencoder_losses import (
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
    normal_divergence,
    pyramid_error,
)
from viewgen.eldm.autoencoder_trainer import AutoencoderTrainer, autoencoder_batches, build_networks
from viewgen.eldm.data import TrainingImages, rank_slices

TINY = eldm.AutoencoderConfig(
    resolution=16,
    channels=(8, 16),
    layers_per_block=1,
    norm_groups=4,
    steps=6,
    batch_size=4,
    learning_rate=2e-3,
    warmup_steps=2,
    discriminator_channels=8,
    discriminator_layers=2,
    seed=3,
)
CONTEST = replace(TINY, adversarial_weight=0.5)


@pytest.fixture
def batch(images, embeddings):
    source = TrainingImages(images, embeddings.keys, 16)
    return next(autoencoder_batches(source, TINY, rank_slices(TINY, 14, 0), 1))


def gradients(module, loss):
    names, values = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
    return {name: value for name, value in zip(names, found, strict=True) if value is not None}


def test_it_learns_to_reconstruct_and_is_a_diffusers_folder(images, embeddings, tmp_path):
    """A mean colour per image has an error of 40 levels; 200 steps have to leave less than half of that."""
    folder = train_autoencoder(images, tmp_path, replace(TINY, steps=200, learning_rate=5e-3, ema_decay=0.98))
    pixels = torch.stack([read_image(images / key) for key in embeddings.keys])
    coder = eldm.Autoencoder.load(folder)
    assert coder.latent_shape(16) == (4, 8, 8)
    latents = coder.encode(pixels)
    assert latents.std().item() == pytest.approx(1, abs=0.02)
    error = (coder.decode(latents).float() - pixels.float()).abs().mean()
    flat = pixels.float().mean(dim=(2, 3), keepdim=True)
    assert (flat - pixels).abs().mean() > 35
    assert error < 20
    module = AutoencoderKL.from_pretrained(folder)
    with torch.no_grad():
        encoded = module.encode(pixels[:2].float() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(latents[:2], encoded * module.config.scaling_factor, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [TINY, replace(CONTEST, adversarial_start=3)])
def test_resume_is_bit_identical(images, config, tmp_path):
    def stop(step, total, metrics):
        if step == 5:
            raise KeyboardInterrupt

    whole = train_autoencoder(images, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(images, tmp_path / "parts", config, on_step=stop, checkpoint_seconds=0.0)
    seen = []
    train_autoencoder(images, tmp_path / "parts", config, on_step=lambda step, *_: seen.append(step))
    assert seen == [5, 6]
    for name in ("diffusion_pytorch_model.safetensors", "config.json", "training.json"):
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
        assert (whole / name).stat().st_mode == (whole / "training.json").stat().st_mode
    assert not (whole / "unfinished").exists()


def test_a_finished_one_is_kept_and_another_configuration_refused(images, tmp_path):
    train_autoencoder(images, tmp_path, TINY)
    train_autoencoder(images, tmp_path, TINY, on_step=lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"an autoencoder of another configuration \(kl_weight was 1e-06, now 0\.1"):
        train_autoencoder(images, tmp_path, replace(TINY, kl_weight=0.1))
    with pytest.raises(ValueError, match="images was"):
        train_autoencoder(images, tmp_path, TINY, keys=["even/000.png", "odd/001.png"])


def test_a_loss_that_is_not_finite_stops(images, tmp_path, monkeypatch):
    monkeypatch.setattr("viewgen.eldm.training.learning_rate", lambda config, step: 1e30)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train_autoencoder(images, tmp_path, replace(TINY, grad_clip=1e30))
    assert not (tmp_path / "config.json").exists()


def test_one_sum_gives_each_network_the_gradient_of_its_own_loss(batch):
    """Beside the published way: two losses, the adaptive weight by hand, two separate passes."""
    trainer = AutoencoderTrainer(CONTEST, "cpu")
    coder, discriminator = build_networks(CONTEST)
    pixels = batch.images.float() / 127.5 - 1
    latents = coder.encode(pixels).latent_dist
    decoded = coder.decode(latents.mean + latents.std * batch.noise).sample
    error = (decoded - pixels).abs().mean() + pyramid_error(decoded - pixels)
    adversarial = -discriminator(decoded).mean()
    last = "decoder.conv_out.weight"
    lengths = [gradients(coder, loss)[last].norm() for loss in (error, adversarial)]
    divergence = latents.kl().mean() * 1e-6 / 768
    expected = gradients(coder, error + divergence + 0.5 * lengths[0] / (lengths[1] + 1e-4) * adversarial)
    hinge = 0.5 * ((1 - discriminator(pixels)).clamp_min(0).mean() + (1 + discriminator(decoded)).clamp_min(0).mean())
    of_discriminator = gradients(discriminator, hinge)
    trainer.loss(batch)[0].backward()
    for network, wanted in ((trainer.vae, expected), (trainer.discriminator, of_discriminator)):
        assert len(wanted) == len(list(network.parameters()))
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-6)


def test_the_discriminator_begins_at_its_step(batch):
    trainer = AutoencoderTrainer(replace(CONTEST, adversarial_start=2), "cpu")
    before, figures = trainer.loss(replace(batch, step=1))
    assert "discriminator" not in figures
    before.backward()
    assert all(parameter.grad is None for parameter in trainer.discriminator.parameters())
    assert trainer.loss(replace(batch, step=2))[1]["discriminator"] > 0
    assert [len(AutoencoderTrainer(config, "cpu").optim.parts) for config in (TINY, CONTEST)] == [1, 2]


def test_the_discriminator_learns_to_tell(batch):
    trainer = AutoencoderTrainer(replace(CONTEST, learning_rate=1e-3, steps=40), "cpu")
    hinges = []
    for step in range(40):
        loss, figures = trainer.loss(replace(batch, step=step))
        hinges.append(figures["discriminator"].item())
        trainer.optim.update(loss, step)
    assert hinges[0] == pytest.approx(1, abs=0.1)
    assert min(hinges[20:]) < 0.8


def test_pyramid_error_is_the_sum_over_levels():
    difference = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    level, expected = difference, 0.0
    for _ in range(3):
        half = level.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2))
        upsampled = interpolate(half, level.shape[-2:], mode="bilinear")
        expected += (level - upsampled).abs().mean()
        level = half
    expected += level.abs().mean()
    torch.testing.assert_close(pyramid_error(difference, levels=3), expected)
    assert pyramid_error(torch.full((1, 3, 16, 16), 0.5)).item() == pytest.approx(0.5)
    assert pyramid_error(torch.zeros(1, 3, 1, 1)) == 0


def test_divergence_is_torchs():
    mean, log_variance = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    of = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(of, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(normal_divergence(mean, log_variance), expected)


def test_hinge_loss_at_its_corners():
    patches = torch.ones(2, 1, 3, 3)
    found = [hinge_loss(real * patches, fake * patches).item() for real, fake in ((1, -1), (0, 0), (-1, 1), (3, -3))]
    assert found == [0, 1, 2, 0]


def test_adaptive_weight_is_bounded():
    last = torch.ones(3, requires_grad=True)
    assert adaptive_weight((2 * last).sum(), last.sum(), last).item() == pytest.approx(2, rel=1e-3)
    assert adaptive_weight((100 * last).sum(), (0 * last).sum(), last).item() == 1e4


def test_a_patchs_figure_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=8, layers=3)
    pixels = torch.randn(3, 3, 32, 32)
    figures = discriminator(pixels)
    assert figures.shape == (3, 1, 2, 2)
    torch.testing.assert_close(discriminator(pixels[1:2])[0], figures[1], rtol=0, atol=1e-5)
    assert 2.7e6 < sum(parameter.numel() for parameter in PatchDiscriminator().parameters()) < 2.8e6


@pytest.mark.parametrize(("name", "shape"), [("64-small", (4, 16, 16)), ("256", (4, 32, 32))])
def test_presets_fit_the_diffusion_models_of_their_names(name, shape):
    config = autoencoder_preset(name)
    assert config.latent_shape == shape
    assert (eldm.preset(name).resolution, eldm.preset(name).latents) == (config.resolution, True)
    with torch.device("meta"):
        coder, _ = build_networks(config)
    assert eldm.Autoencoder(coder).latent_shape(config.resolution) == shape
    with pytest.raises(ValueError, match="64-small, 256"):
        autoencoder_preset("32")


def test_the_large_preset_is_the_official_network():
    """As many parameters as Stable Diffusion's published 8-fold autoencoder has."""
    with torch.device("meta"):
        coder, _ = build_networks(autoencoder_preset("256"))
    assert sum(parameter.numel() for parameter in coder.parameters()) == 83_653_863


def test_mistakes_of_a_configuration_get_one_clear_line():
    with pytest.raises(ValueError, match="multiples of norm_groups 4"):
        replace(TINY, channels=(8, 10))
    with pytest.raises(ValueError, match="resolution that is a multiple of 4"):
        replace(TINY, channels=(8, 8, 8), resolution=18)


def test_training_json_says_what_it_was_trained_with(images, tmp_path):
    folder = train_autoencoder(images, tmp_path, replace(TINY, steps=1))
    assert json.loads((folder / "training.json").read_text())["kl_weight"] == 1e-6
