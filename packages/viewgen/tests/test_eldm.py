import json
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel

from viewgen import eldm, generate_views, list_images, load_generator, read_image, view_seed
from viewgen.eldm import ELDMGenerator, preset, train_eldm
from viewgen.eldm.data import EpochPermutation, TrainingImages, draw_noise, rank_slices, read_ahead
from viewgen.eldm.diffusion_trainer import denoising_loss
from viewgen.eldm.model import build_scheduler
from viewgen.eldm.sampling import clipped
from viewgen.eldm.training import learning_rate

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
    kind = {"ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler}[sampler]
    scheduler = kind.from_pretrained(
        trained / "scheduler", timestep_spacing="trailing", prediction_type="sample", clip_sample=False
    )
    scheduler.set_timesteps(5)
    images = torch.stack([torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])

    @torch.no_grad()
    def predict(labels, timestep):
        folded = torch.nn.functional.pixel_unshuffle(images, 2)
        tokens = condition.token(labels)[:, None]
        return torch.nn.functional.pixel_shuffle(unet(folded, timestep, tokens, class_labels=labels).sample, 2)

    for timestep in scheduler.timesteps:
        velocity = predict(known, timestep)
        if guidance != 1:
            none = predict(torch.zeros_like(known), timestep)
            velocity = none + guidance * (velocity - none)
        kept = scheduler.alphas_cumprod[timestep]
        clean = (kept.sqrt() * images - (1 - kept).sqrt() * velocity).clamp(-1, 1)
        images = scheduler.step(clean, timestep, images).prev_sample
    expected = ((images.clamp(-1, 1) + 1) * 127.5).round()
    assert (views.float() - expected).abs().max() <= 1


def test_the_samplers_go_to_one_limit(trained, vectors):
    """Strong guidance, where clipping matters: both samplers in many steps paint the same."""
    views = {}
    for sampler, steps in (("ddim", 100), ("dpm", 30), ("dpm", 3)):
        generator = ELDMGenerator(trained, steps=steps, guidance=6.0, sampler=sampler)
        views[sampler, steps] = generator.generate(vectors[:4], seeds=SEEDS[:4]).float()
    reference = views.pop(("ddim", 100))
    assert ((reference == 0) | (reference == 255)).float().mean() > 0.01
    errors = {steps: (found - reference).abs().mean().item() for (_, steps), found in views.items()}
    assert errors[30] < 2 < errors[3]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_clipped_prediction_implies_the_clipped_image(prediction):
    process = build_scheduler(replace(preset("32"), prediction=prediction))
    timestep = torch.tensor(400)
    signal = process.alphas_cumprod[timestep].sqrt()
    sigma = (1 - signal**2).sqrt()
    clean, noise = 2 * torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noisy = signal * clean + sigma * noise

    def answer(clean):
        implied = (noisy - signal * clean) / sigma
        return {"epsilon": implied, "v_prediction": signal * implied - sigma * clean, "sample": clean}[prediction]

    found = clipped(process, answer(clean), timestep, noisy)
    torch.testing.assert_close(found, answer(clean.clamp(-1, 1)), rtol=0, atol=1e-5)


def test_training_lowers_the_loss_and_the_condition_is_used(images, embeddings, vectors, trained, tiny_config):
    generator = ELDMGenerator(trained, guidance=1.0)
    condition = generator.denoiser.condition
    clean = torch.stack([read_image(images / key) for key in embeddings.keys]).float() / 127.5 - 1
    config = replace(tiny_config, seed=9, batch_size=14, steps=20, condition_dropout=0.0)
    draws = [draw_noise(part, config, (3, 16, 16)) for part in rank_slices(config, 14, 0)]

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
    rough = ELDMGenerator(trained, steps=4, dtype="bfloat16").generate(vectors, seeds=SEEDS)
    assert 0 < (exact.float() - rough.float()).abs().mean() < 4
    assert torch.equal(ELDMGenerator(trained, steps=4, dtype=torch.bfloat16).generate(vectors, seeds=SEEDS), rough)


@pytest.mark.slow
def test_a_compiled_network_paints_the_same(trained, vectors):
    views = [ELDMGenerator(trained, steps=2, compile=it).generate(vectors[:2], seeds=SEEDS[:2]) for it in (False, True)]
    assert (views[0].int() - views[1].int()).abs().max() <= 1


def test_an_encoder_by_name_has_to_be_that_of_training(trained):
    with pytest.raises(ValueError, match=r"expected timm/<model>"):
        ELDMGenerator(trained, encoder="no/such-encoder")


def test_views_of_one_image_differ_by_their_seeds(images, trained, embeddings, tmp_path):
    generator = ELDMGenerator(trained, steps=4)
    generate_views(images, tmp_path, generator, embeddings=embeddings, views_per_image=3)
    for key in embeddings.keys:
        views = [read_image(tmp_path / f"{key}.{k}.png").float() for k in range(3)]
        assert min((views[a] - views[b]).abs().mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.5


def test_condition_is_the_embedding_and_the_encoder_is_checked(images, trained, embeddings, vectors, tiny_encoder):
    generator = load_generator("eldm", folder=trained, encoder=tiny_encoder)
    pixels = torch.stack([read_image(images / key) for key in list_images(images)])
    assert torch.allclose(generator.condition(pixels), vectors, atol=2e-3)
    tiny_encoder[2].bias.data += 1
    with pytest.raises(ValueError, match="expected the encoder that"):
        ELDMGenerator(trained, tiny_encoder)
    with pytest.raises(ValueError, match="got none; give it"):
        ELDMGenerator(trained).condition(pixels)


def test_user_mistakes_are_one_line_errors(trained, vectors, tmp_path):
    generator = ELDMGenerator(trained)
    with pytest.raises(ValueError, match="expected no strength"):
        generator.generate(vectors, seeds=SEEDS, strength=torch.ones(14))
    with pytest.raises(ValueError, match="expected embeddings of length 12, got conditions of length 5"):
        generator.generate(vectors[:, :5], seeds=SEEDS)
    with pytest.raises(ValueError, match="expected a trained E-LDM"):
        ELDMGenerator(tmp_path)
    with pytest.raises(ValueError, match="expected steps of 1 to 1000, got 0"):
        ELDMGenerator(trained, steps=0)
    with pytest.raises(ValueError, match=r"expected a generator of .*eldm"):
        load_generator("nothing")
    with pytest.raises(ValueError, match="32-small, 32-narrow, 32-dit, 32, 32-latent, 64-small, 256"):
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
        assert (whole / name).stat().st_mode == (whole / "unet" / "config.json").stat().st_mode


def test_streamed_images_train_the_same_model(images, embeddings):
    kept = TrainingImages(images, embeddings.keys, 16)
    streamed = TrainingImages(images, embeddings.keys, 16, memory_bytes=0)
    wanted = [([3, 1], [False, True]), ([13, 0], [True, True]), ([5, 5], [False, True]), ([2, 4], [False, False])]
    read = [list(read_ahead(source, iter(wanted), workers=2)) for source in (kept, streamed)]
    for one, other, (rows, mirrored) in zip(*read, wanted, strict=True):
        assert torch.equal(one, other)
        for image, row, flipped in zip(one, rows, mirrored, strict=True):
            straight = read_image(images / embeddings.keys[row])
            assert torch.equal(image, straight.flip(2) if flipped else straight)


def test_draws_belong_to_step_and_place(tiny_config):
    config = replace(tiny_config, seed=1, batch_size=8, steps=400, condition_dropout=0.5)
    halves = [list(rank_slices(config, 14, 0, rank, 2)) for rank in range(2)]
    many = [draw_noise(part, config, (3, 4, 4)) for part in rank_slices(config, 14, 0)]
    for whole, *parts in zip(many[:5], *halves, strict=False):
        drawn = [draw_noise(part, config, (3, 4, 4)) for part in parts]
        for name in ("flip", "keep", "timestep", "noise"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(draws, name) for draws in drawn]))
    assert abs(torch.cat([d.keep for d in many]).float().mean() - 0.5) < 0.03
    times = torch.cat([d.timestep for d in many])
    assert torch.histc(times.float(), 8, 0, 1000).tolist() == pytest.approx([400] * 8, abs=8)


def test_logit_normal_timesteps_are_spread_as_the_law_says(tiny_config):
    config = replace(tiny_config, seed=1, batch_size=1000, timestep_sampling="logit_normal")
    times = draw_noise(next(rank_slices(config, 14, 0)), config, (1, 1, 1)).timestep.double()
    for quantile, normal in ((0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0)):
        expected = 1000 * torch.sigmoid(torch.tensor(normal)).item()
        assert times.quantile(quantile).item() == pytest.approx(expected, abs=5)


def test_the_three_predictions_have_one_loss_where_they_are_right():
    """A network that knows the answer has no loss; errors of v and of x weigh the same for noisy images."""
    clean = torch.rand(64, 3, 8, 8) * 2 - 1
    config = replace(preset("32"), batch_size=64, condition_dropout=0.0)
    draws = draw_noise(next(rank_slices(config, 64, 0)), config, (3, 8, 8))
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
    order = EpochPermutation(11, seed=2)
    passes = [[order(epoch * 11 + place) for place in range(11)] for epoch in range(3)]
    assert all(sorted(taken) == list(range(11)) for taken in passes)
    assert passes[0] != passes[1] != passes[2]


def test_learning_rate_law(tiny_config):
    config = replace(tiny_config, steps=100, warmup_steps=10, final_learning_rate=0.1)
    rates = [learning_rate(config, step) / config.learning_rate for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] > 0.97
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_loss_that_is_not_finite_names_the_last_good_state(images, embeddings, tiny_config, tmp_path, monkeypatch):
    config = replace(tiny_config, grad_clip=1e30, steps=50)
    monkeypatch.setattr("viewgen.eldm.training.learning_rate", lambda config, step: 1e30 if step == 3 else 1e-3)
    with pytest.raises(FloatingPointError, match=r"at step 5; the last checkpoint is .*training_state.pt"):
        train_eldm(images, embeddings, tmp_path, config, checkpoint_seconds=0.0)
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert state["step"] == 3
    assert max(value.abs().max() for value in state["module"].values()) < 100
    assert not (tmp_path / "model_index.json").exists()
    with pytest.raises(FloatingPointError, match="at step 5; no checkpoint was saved yet"):
        train_eldm(images, embeddings, tmp_path / "never", config)


def test_the_folder_says_whose_embeddings_it_knows(trained, embeddings):
    about = json.loads((trained / "condition/config.json").read_text())
    assert (about["encoder_name"], about["encoder_hash"], about["dim"]) == ("tiny", embeddings.encoder_hash, 12)
    state = torch.load(trained / "training_state.pt", weights_only=True)
    assert state["step"] == 400


@pytest.mark.parametrize(
    ("name", "channels", "side"),
    [
        ("32-small", 3, 32),
        ("32-narrow", 3, 32),
        ("32-dit", 3, 32),
        ("32", 3, 32),
        ("32-latent", 32, 4),
        ("64-small", 4, 16),
        ("256", 4, 32),
    ],
)
def test_presets_build(name, channels, side):
    config = preset(name)
    with torch.device("meta"):
        denoiser = eldm.build_denoiser(config, 64, channels, side)
        out = denoiser(torch.empty(2, channels, side, side), torch.empty(2, dtype=torch.int64), torch.empty(2, 64))
    assert out.shape == (2, channels, side, side)
