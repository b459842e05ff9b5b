"""Views that start from their source: noise up to a strength, then denoising."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from viewgen import (
    Interpolation,
    generate_views,
    list_images,
    load_generator,
    merge_journals,
    nearest_partners,
    read_image,
    slerp,
    view_seed,
)
from viewgen.diffusion.editing import clean_image, edit_timesteps
from viewgen.eldm import ELDMGenerator
from viewgen.eldm.sampling import guided_prediction, initial_noise

SEEDS = [view_seed(0, "k", k) for k in range(14)]
STEPS = 6


@pytest.fixture
def generator(trained, tiny_encoder):
    return ELDMGenerator(trained, tiny_encoder, from_image=True, steps=STEPS)


@pytest.fixture(scope="module")
def pixels(images):
    return torch.stack([read_image(images / key) for key in list_images(images)])


@pytest.mark.parametrize("strength", [0.35, 0.8])
def test_views_equal_those_of_diffusers_solver_from_the_noised_image(generator, pixels, strength):
    views = generator.generate(generator.condition(pixels), seeds=SEEDS, strength=torch.full((14,), strength))

    scheduler = DPMSolverMultistepScheduler.from_config(generator.noise_process.config)
    scheduler.set_timesteps(timesteps=edit_timesteps(torch.tensor([strength]), STEPS, 1000)[:, 0].tolist())
    noise, source = initial_noise(SEEDS, (3, 16, 16)), pixels.float() / 127.5 - 1
    images = scheduler.add_noise(source, noise, scheduler.timesteps[:1].expand(14))
    known = generator.denoiser.condition.standardize(generator.encoder(pixels))
    reference = DPMSolverMultistepScheduler.from_config(scheduler.config, prediction_type="sample")
    reference.set_timesteps(timesteps=scheduler.timesteps.tolist())
    for timestep in reference.timesteps:
        with torch.no_grad():
            predicted = guided_prediction(generator.denoiser, images, timestep.expand(14), known, 4.0)
        clean = clean_image(generator.noise_process, predicted, timestep, images).clamp(-1, 1)
        images = reference.step(clean, timestep, images).prev_sample
    assert (views.float() - ((images.clamp(-1, 1) + 1) * 127.5).round()).abs().max() <= 1


def test_strength_one_is_generation_from_noise(generator, trained, pixels):
    views = generator.generate(generator.condition(pixels), seeds=SEEDS, strength=torch.ones(14))
    alone = ELDMGenerator(trained, steps=STEPS)
    assert (views.int() - alone.generate(generator.encoder(pixels), seeds=SEEDS).int()).abs().max() <= 1


def test_lower_strength_gives_closer_views_independently_of_the_batch(generator, pixels):
    condition = generator.condition(pixels)
    strengths = torch.tensor([0.1, 0.4, 0.9])
    views = [generator.generate(condition, seeds=SEEDS, strength=each.expand(14)) for each in strengths]
    distances = [(view.float() - pixels.float()).square().mean().item() for view in views]
    assert distances == sorted(distances)
    assert distances[2] > 4 * distances[0]
    mixed = generator.generate(condition[:3], seeds=SEEDS[:3], strength=strengths)
    apart = torch.stack([view[place] for place, view in enumerate(views)])
    assert (mixed.int() - apart.int()).abs().max() <= 1


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 7), (0.5, 7), (0.013, 6)])
def test_timesteps_decrease_from_the_start(strength, steps):
    timesteps = edit_timesteps(torch.tensor([strength, 1.0]), steps, 1000)
    assert timesteps[0].tolist() == [round(1000 * strength) - 1, 999]
    assert bool((timesteps.diff(dim=0) < 0).all())
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert timesteps[:, 1].tolist() == scheduler.timesteps.tolist()


def test_strengths_are_recorded_in_the_manifest(generator, images, tmp_path):
    generate_views(images, tmp_path, generator, strength=0.3)
    close = torch.stack([read_image(tmp_path / f"{key}.0.png") for key in list_images(images)]).float()
    sources = torch.stack([read_image(images / key) for key in list_images(images)]).float()
    assert (close - sources).abs().mean() < 60


def test_cached_embeddings_replace_the_encoder(trained, embeddings, images, pixels, tmp_path):
    generator = ELDMGenerator(trained, from_image=True, steps=STEPS)
    generate_views(images, tmp_path, generator, embeddings=embeddings, strength=0.5, batch_size=14)
    keys = list_images(images)
    views = torch.stack([read_image(tmp_path / f"{key}.0.png") for key in keys])
    condition = generator.condition_with(pixels, torch.from_numpy(embeddings.vectors[:].astype("float32")))
    seeds = [view_seed(0, key, 0) for key in keys]
    expected = generator.generate(condition, seeds=seeds, strength=torch.full((14,), 0.5))
    assert (views.int() - expected.int()).abs().max() <= 1


def test_an_image_without_cached_embedding_is_a_failure(trained, embeddings, images, tmp_path, write_images):
    more = tmp_path / "more"
    write_images(more, 16)
    generator = ELDMGenerator(trained, from_image=True, steps=STEPS)
    summary = generate_views(more, tmp_path / "views", generator, embeddings=embeddings, strength=0.5)
    assert (summary.written, summary.failed) == (14, 2)


def test_views_between_two_images_start_from_both(trained, embeddings, images, tmp_path):
    generator = ELDMGenerator(trained, from_image=True, steps=STEPS)
    interpolate = Interpolation(alpha=(0.2, 0.8), from_k=1)
    options = {"embeddings": embeddings, "interpolate": interpolate, "strength": 0.3, "views_per_image": 2}
    generate_views(images, tmp_path, generator, **options, batch_size=28)
    rows = [row for row in pq.read_table(merge_journals(tmp_path)).to_pylist() if row["partner_key"]]
    assert len(rows) == 14 and all(row["k"] == 1 and row["partner_key"] != row["key"] for row in rows)
    first, second = (torch.stack([read_image(images / row[name]) for row in rows]) for name in ("key", "partner_key"))
    alphas = torch.tensor([row["alpha"] for row in rows])
    vectors = torch.from_numpy(embeddings.vectors[:].astype("float32"))
    own, others = (vectors[[embeddings.keys.row(row[name]) for row in rows]] for name in ("key", "partner_key"))
    mixed = slerp(own, others, alphas.double())
    sources = (alphas.view(-1, 1, 1, 1) * first + (1 - alphas.view(-1, 1, 1, 1)) * second).flatten(1) / 127.5 - 1
    condition = torch.cat([mixed, sources], dim=1)
    seeds = [view_seed(0, row["key"], 1) for row in rows]
    expected = generator.generate(condition, seeds=seeds, strength=torch.full((14,), 0.3))
    views = torch.stack([read_image(tmp_path / row["path"]) for row in rows])
    assert (views.int() - expected.int()).abs().max() <= 1


def test_alpha_one_is_the_view_of_the_image_itself(trained, embeddings, images, tmp_path):
    generator = ELDMGenerator(trained, from_image=True, steps=STEPS)
    options = {"embeddings": embeddings, "strength": 0.5}
    generate_views(images, tmp_path / "own", generator, **options)
    generate_views(images, tmp_path / "one", generator, **options, interpolate=Interpolation(alpha=1.0))
    for key in list_images(images):
        own, one = (read_image(tmp_path / name / f"{key}.0.png").int() for name in ("own", "one"))
        assert (own - one).abs().max() <= 1


def test_an_unreadable_partner_is_a_failure_of_the_view(trained, embeddings, images, tmp_path):
    copied = shutil.copytree(images, tmp_path / "images")
    broken = list_images(copied)[3]
    (copied / broken).write_bytes(b"no image")
    generator = ELDMGenerator(trained, from_image=True, steps=STEPS)
    options = {"embeddings": embeddings, "interpolate": Interpolation(partner="nearest"), "strength": 0.5}
    summary = generate_views(copied, tmp_path / "views", generator, **options)
    neighbors = nearest_partners(embeddings.vectors, range(14)).tolist()
    lost = {key for row, key in enumerate(embeddings.keys) if broken in (key, embeddings.keys[neighbors[row]])}
    assert (summary.written, summary.failed) == (14 - len(lost), len(lost))
    failures = [json.loads(line) for line in (tmp_path / "views/failures.jsonl").read_text().splitlines()]
    assert {failure["key"] for failure in failures} == lost
    messages = [failure["error"] for failure in failures if failure["key"] != broken]
    assert all(message.startswith(f"its partner {broken} cannot be read: ") for message in messages)


def test_user_mistakes_are_one_line_errors(generator, trained, tiny_encoder, pixels):
    condition = generator.condition(pixels)
    with pytest.raises(ValueError, match=r"expected strengths in \[0.012, 1\] for 6 steps, got"):
        generator.generate(condition, seeds=SEEDS, strength=torch.zeros(14))
    with pytest.raises(ValueError, match="expected embeddings of length 12 and 768 values of the image"):
        generator.generate(condition[:, :12], seeds=SEEDS)
    with pytest.raises(ValueError, match="expected the encoder that this E-LDM was trained with, got none"):
        load_generator("eldm", folder=trained, from_image=True).condition(pixels)
    with pytest.raises(ValueError, match="sampler 'dpm'"):
        ELDMGenerator(trained, tiny_encoder, from_image=True, sampler="ddim")
