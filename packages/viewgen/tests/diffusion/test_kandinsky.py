"""Kandinsky 2.2 on tiny random models in the official layouts, against diffusers' own pipeline and against itself."""

import shutil

import pytest
import torch
from diffusers import DDPMScheduler, KandinskyV22Pipeline
from safetensors.torch import load_file, save_file
from tiny_diffusion import KANDINSKY_DIM, difference, random_images

from viewgen.kandinsky import KandinskyGenerator

SEEDS = [11, 2**62 + 5, 7]
LEVELS = torch.tensor([0.0, 400.0, 130.0])


@pytest.fixture(scope="module")
def make(kandinsky):
    def load(**options) -> KandinskyGenerator:
        files = {"model": kandinsky / "decoder", "prior": kandinsky / "prior"}
        return KandinskyGenerator(**{**files, "steps": 3, "render_size": 16, **options})

    return load


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_each_image_of_a_mixed_batch_equals_the_pipeline_at_its_noise(make, kandinsky, guidance):
    generator = make(guidance=guidance)
    condition = generator.condition(random_images(3, 30, 41))
    ours = generator.pixels(condition, seeds=SEEDS, strength=LEVELS)
    pipe = KandinskyV22Pipeline.from_pretrained(kandinsky / "decoder", low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    prior = load_file(kandinsky / "prior" / "prior" / "diffusion_pytorch_model.safetensors")
    for row, (seed, level) in enumerate(zip(SEEDS, LEVELS.long(), strict=True)):
        draws = torch.Generator().manual_seed(seed)
        noise = torch.randn(KANDINSKY_DIM, generator=draws)
        clean = (condition[row : row + 1] - prior["clip_mean"]) / prior["clip_std"]
        noised = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(clean, noise, level[None])
        theirs = pipe(
            image_embeds=noised * prior["clip_std"] + prior["clip_mean"],
            negative_image_embeds=generator.nothing,
            generator=draws,
            height=16,
            width=16,
            num_inference_steps=3,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        assert difference(ours[row : row + 1], theirs / 2 + 0.5) < 1e-4
    assert difference(ours, generator.pixels(condition, seeds=SEEDS)) > 1e-3


def test_a_view_does_not_depend_on_its_batch_and_is_uint8(make):
    generator = make(output_size=11)
    condition = generator.condition(random_images(3, 30, 41))
    together = generator.pixels(condition, seeds=SEEDS, strength=LEVELS)
    alone = [
        generator.pixels(condition[i : i + 1], seeds=SEEDS[i : i + 1], strength=LEVELS[i : i + 1]) for i in range(3)
    ]
    assert difference(together, torch.cat(alone)) < 1e-4
    assert generator.generate(condition, seeds=SEEDS).shape == (3, 3, 11, 11)


def test_a_prior_without_its_weights_needs_statistics(make, kandinsky, tmp_path):
    prior = shutil.copytree(kandinsky / "prior", tmp_path / "prior")
    shutil.rmtree(prior / "prior")
    generator = make(prior=prior)
    condition = generator.condition(random_images(1, 24, 24))
    with pytest.raises(ValueError, match="viewgen statistics"):
        generator.pixels(condition, seeds=[1], strength=torch.tensor([100.0]))
    save_file(
        {"mean": torch.zeros(KANDINSKY_DIM), "std": torch.ones(KANDINSKY_DIM)}, tmp_path / "statistics.safetensors"
    )
    measured = make(prior=prior, statistics=tmp_path / "statistics.safetensors")
    assert measured.pixels(condition, seeds=[1], strength=torch.tensor([100.0])).isfinite().all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"render_size": 18}, "multiple of 4"),
        ({"steps": 0}, "steps of 1 or more"),
        ({"prior": None}, "expected the prior of the decoder"),
    ],
)
def test_wrong_options_are_one_line(make, options, told):
    with pytest.raises(ValueError, match=told):
        make(**options)


def test_folders_of_another_pipeline_are_one_line(make, bases, kandinsky):
    with pytest.raises(ValueError, match=r"got .* \(a StableDiffusionPipeline\), which lacks movq") as error:
        make(model=bases["sd"])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="which lacks image_encoder, image_processor"):
        make(prior=kandinsky / "decoder")
