import json
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel, VQModel

from viewgen import eldm, list_images, load_generator, read_image, view_seed
from viewgen.eldm import ELDMGenerator, preset, train_eldm
from viewgen.eldm.data import EpochOrder, TrainingImages, draw
from viewgen.eldm.learner import denoising_loss, learning_rate
from viewgen.eldm.model import build_scheduler

SEEDS = [view_seed(0, "k", k) for k in range(14)]


@pytest.fixture(scope="module")
def vectors(embeddings):
    return torch.from_numpy(embeddings.vectors.astype("float32"))


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_sampler_equals_a_plain_diffusers_loop(trained, vectors, sampler, guidance):
    generator = ELDMGenerator(trained, steps=5, guidance=guidance, sampler=sampler)
    views = generator.generate(vectors, seeds=SEEDS)
    unet = UNet2DConditionModel.from_pretrained(trained / "unet")
    condition = generator.denoiser.condition
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    known = (unit - condition.mean) / condition.std
    kind, options = {
        "ddim": (DDIMScheduler, {"clip_sample": True}),
        "dpm": (DPMSolverMultistepScheduler, {"thresholding": True, "sample_max_value": 1.0}),
    }[sampler]
    scheduler = kind.from_pretrained(trained / "scheduler", timestep_spacing="trailing", **options)
    scheduler.set_timesteps(5)
    images = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])

    @torch.no_grad()
    def predict(labels, timestep):
        folded = torch.nn.functional.pixel_unshuffle(images, 2)
        tokens = condition.token(labels)[:, None]
        return torch.nn.functional.pixel_shuffle(unet(folded, timestep, tokens, class_labels=labels).sample, 2)

    for timestep in scheduler.timesteps:
        predicted = predict(known, timestep)
        if guidance != 1:
            none = predict(torch.zeros_like(known), timestep)
            predicted = none + guidance * (predicted - none)
        images = scheduler.step(predicted, timestep, images).prev_sample
    expected = ((images.clamp(-1, 1) + 1) * 127.5).round()
    assert (views.float() - expected).abs().max() <= 1


def test_training_lowers_the_loss_and_the_condition_is_used(images, embeddings, vectors, trained, tiny_config):
    generator = ELDMGenerator(trained, guidance=1.0)
    condition = generator.denoiser.condition
    clean = torch.stack([read_image(images / key) for key in embeddings.keys]).float() / 127.5 - 1
    draws = [
        draw(
            range(14),
            seed=9,
            step=s,
            batch_size=14,
            shape=(3, 16, 16),
            timesteps=1000,
            timestep_law="uniform",
            flip=False,
            dropout=0.0,
        )
        for s in range(20)
    ]

    def loss(network, embedded):
        with torch.no_grad():
            parts = [denoising_loss(network, condition, generator.noise_process, clean, embedded, d) for d in draws]
        return torch.stack(parts).mean()

    fresh = eldm.build_denoiser(tiny_config, embeddings.dim, 3, 16)
    assert loss(generator.denoiser, vectors) < 0.8 * loss(fresh, vectors)
    assert loss(generator.denoiser, vectors) < loss(generator.denoiser, vectors.roll(1, 0)) - 0.01


def test_a_view_does_not_depend_on_its_batch(trained, vectors):
    generator = ELDMGenerator(trained, steps=4)
    together = generator.generate(vectors, seeds=SEEDS)
    assert torch.equal(together, generator.generate(vectors, seeds=SEEDS))
    alone = torch.cat([generator.generate(vectors[i : i + 1], seeds=SEEDS[i : i + 1]) for i in range(14)])
    assert (alone.int() - together.int()).abs().max() <= 1
    other = generator.generate(vectors, seeds=[seed + 1 for seed in SEEDS])
    assert (other.float() - together.float()).abs().mean() > 1


def test_bfloat16_is_close_to_float32(trained, vectors):
    exact = ELDMGenerator(trained, steps=4).generate(vectors, seeds=SEEDS)
    rough = ELDMGenerator(trained, steps=4, dtype=torch.bfloat16).generate(vectors, seeds=SEEDS)
    assert (exact.float() - rough.float()).abs().mean() < 4


def test_condition_is_the_embedding_and_the_encoder_is_checked(images, trained, embeddings, vectors, tiny_encoder):
    generator = load_generator("eldm", folder=trained, encoder=tiny_encoder)
    pixels = torch.stack([read_image(images / key) for key in list_images(images)])
    assert torch.allclose(generator.condition(pixels), vectors, atol=2e-3)
    tiny_encoder[2].bias.data += 1
    with pytest.raises(ValueError, match="give that encoder"):
        ELDMGenerator(trained, tiny_encoder)
    with pytest.raises(ValueError, match="no encoder"):
        ELDMGenerator(trained).condition(pixels)


def test_user_mistakes_get_one_clear_line(trained, vectors, tmp_path):
    generator = ELDMGenerator(trained)
    with pytest.raises(ValueError, match="takes no strength"):
        generator.generate(vectors, seeds=SEEDS, strength=torch.ones(14))
    with pytest.raises(ValueError, match="length 12, not 5"):
        generator.generate(vectors[:, :5], seeds=SEEDS)
    with pytest.raises(ValueError, match="holds no finished E-LDM"):
        ELDMGenerator(tmp_path)
    with pytest.raises(ValueError, match="there is: eldm"):
        load_generator("nothing")
    with pytest.raises(ValueError, match="32-small, 32, 256"):
        preset("64")


def test_finished_folder_is_kept_and_another_configuration_refused(images, embeddings, trained, tiny_config):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    train_eldm(
        images,
        embeddings,
        trained,
        replace(tiny_config, steps=400, flip=False),
        on_step=lambda *_: pytest.fail("trained"),
    )
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    with pytest.raises(ValueError, match=r"batch_size was 4, now 8; learning_rate was 0\.002, now 0\.1"):
        train_eldm(
            images, embeddings, trained, replace(tiny_config, steps=400, flip=False, batch_size=8, learning_rate=0.1)
        )


def test_resume_is_bit_identical(images, embeddings, tiny_config, tmp_path):
    def stop(step, total, metrics):
        if step == 4:
            raise KeyboardInterrupt

    whole = train_eldm(images, embeddings, tmp_path / "whole", tiny_config)
    with pytest.raises(KeyboardInterrupt):
        train_eldm(images, embeddings, tmp_path / "parts", tiny_config, on_step=stop, checkpoint_seconds=0.0)
    seen = []
    train_eldm(images, embeddings, tmp_path / "parts", tiny_config, on_step=lambda step, *_: seen.append(step))
    assert seen == [4, 5, 6]
    for name in ("unet/diffusion_pytorch_model.safetensors", "condition/model.safetensors", "model_index.json"):
        assert (whole / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_streamed_images_train_the_same_model(images, embeddings):
    kept = TrainingImages(images, embeddings.keys, 16)
    streamed = TrainingImages(images, embeddings.keys, 16, memory_bytes=0, workers=2)
    wanted = [[3, 1], [13, 0], [5, 5], [2, 4]]
    for one, other in zip(kept.batches(iter(wanted)), streamed.batches(iter(wanted)), strict=True):
        assert torch.equal(one, other)


def test_draws_belong_to_step_and_place(tiny_config):
    options = {
        "seed": 1,
        "step": 5,
        "batch_size": 8,
        "shape": (3, 4, 4),
        "timesteps": 1000,
        "timestep_law": "uniform",
        "flip": True,
        "dropout": 0.5,
    }
    whole, part = draw(range(8), **options), draw(range(4, 8), **options)
    for name in ("flip", "keep", "timestep", "noise"):
        assert torch.equal(getattr(whole, name)[4:], getattr(part, name))
    many = [draw(range(8), **{**options, "step": step}) for step in range(400)]
    assert abs(torch.cat([d.keep for d in many]).float().mean() - 0.5) < 0.03
    times = torch.cat([d.timestep for d in many])
    assert torch.histc(times.float(), 8, 0, 1000).tolist() == pytest.approx([400] * 8, abs=8)


def test_logit_normal_timesteps_are_spread_as_the_law_says(tiny_config):
    places = range(1000)
    options = {
        "seed": 1,
        "step": 0,
        "batch_size": 1000,
        "shape": (1, 1, 1),
        "timesteps": 1000,
        "flip": True,
        "dropout": 0.1,
    }
    times = draw(places, timestep_law="logit_normal", **options).timestep.double()
    for quantile, normal in ((0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0)):
        expected = 1000 * torch.sigmoid(torch.tensor(normal)).item()
        assert times.quantile(quantile).item() == pytest.approx(expected, abs=5)


def test_the_three_predictions_have_one_loss_where_they_are_right():
    """A network that knows the answer has no loss; errors of v and of x weigh the same for noisy images."""
    clean = torch.rand(64, 3, 8, 8) * 2 - 1
    draws = draw(
        range(64),
        seed=1,
        step=0,
        batch_size=64,
        shape=(3, 8, 8),
        timesteps=1000,
        timestep_law="uniform",
        flip=False,
        dropout=0.0,
    )
    draws = replace(draws, timestep=draws.timestep.clamp_min(100))
    condition = eldm.Condition(4, 8)
    errors = {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        process = build_scheduler(replace(preset("32-small"), prediction=prediction))
        signal = process.alphas_cumprod[draws.timestep].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - signal**2).sqrt()
        shift = 0.01 * sigma  # of the clean image that the wrong answers imply
        x, n = clean + shift, draws.noise - shift * signal / sigma
        wrong = {"epsilon": n, "v_prediction": signal * n - sigma * x, "sample": x}[prediction]
        right = {"epsilon": draws.noise, "v_prediction": signal * draws.noise - sigma * clean, "sample": clean}[
            prediction
        ]
        vectors = torch.ones(64, 4)
        assert denoising_loss(lambda *_, right=right: right, condition, process, clean, vectors, draws) < 1e-9
        errors[prediction] = denoising_loss(
            lambda *_, wrong=wrong: wrong, condition, process, clean, vectors, draws
        ).item()
    assert errors["sample"] == pytest.approx(1e-4, rel=1e-3)
    assert errors["v_prediction"] == pytest.approx(1e-4, rel=1e-3)


def test_every_pass_takes_every_image_once():
    order = EpochOrder(11, seed=2)
    passes = [[order(epoch * 11 + place) for place in range(11)] for epoch in range(3)]
    assert all(sorted(taken) == list(range(11)) for taken in passes)
    assert passes[0] != passes[1] != passes[2]


def test_learning_rate_law(tiny_config):
    config = replace(tiny_config, steps=100, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(config, step) / config.learning_rate for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] > 0.97
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_loss_that_is_not_finite_names_the_last_good_state(images, embeddings, tiny_config, tmp_path):
    config = replace(tiny_config, learning_rate=1e30, grad_clip=1e30, steps=50)
    with pytest.raises(FloatingPointError, match=r"last good state is .*training_state.pt"):
        train_eldm(images, embeddings, tmp_path, config, checkpoint_seconds=0.0)
    assert not (tmp_path / "model_index.json").exists()


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_latents_of_a_diffusers_autoencoder(images, embeddings, tiny_config, tmp_path, kind):
    shape = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "latent_channels": 4,
        "norm_num_groups": 4,
    }
    module = AutoencoderKL(**shape) if kind == "kl" else VQModel(**shape, num_vq_embeddings=16)
    module.save_pretrained(tmp_path / "vae")
    config = replace(tiny_config, patch=1, prediction="epsilon", in_time=False, steps=2)
    folder = train_eldm(images, embeddings, tmp_path / "model", config, autoencoder=tmp_path / "vae")
    vectors = torch.from_numpy(embeddings.vectors[:3].astype("float32"))
    views = ELDMGenerator(folder, steps=2).generate(vectors, seeds=[1, 2, 3])
    assert views.shape == (3, 3, 16, 16)
    assert UNet2DConditionModel.from_pretrained(folder / "unet").config.in_channels == 4
    coder = eldm.Autoencoder.load(folder / "vae")
    latents = coder.encode(views)
    assert latents.shape == (3, *coder.latent_shape(16))
    with pytest.raises(ValueError, match="AutoencoderKL or VQModel"):
        eldm.Autoencoder.load(tmp_path)


def test_the_folder_says_whose_embeddings_it_knows(trained, embeddings):
    about = json.loads((trained / "condition/config.json").read_text())
    assert (about["encoder_name"], about["encoder_hash"], about["dim"]) == ("tiny", embeddings.encoder_hash, 12)
    state = torch.load(trained / "training_state.pt", weights_only=True)
    assert state["step"] == 400


@pytest.mark.parametrize("name", ["32-small", "32", "256"])
def test_presets_build(name):
    config = preset(name)
    side = 32
    with torch.device("meta"):
        channels = 4 if name == "256" else 3
        denoiser = eldm.build_denoiser(config, 64, channels, side)
        out = denoiser(torch.empty(2, channels, side, side), torch.empty(2, dtype=torch.int64), torch.empty(2, 64))
    assert out.shape == (2, channels, side, side)
