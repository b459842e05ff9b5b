"""Image to image on tiny random models, against diffusers' own pipelines and against itself."""

import diffusers
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from tiny_diffusion import difference, random_images

from viewgen.image_to_image import ImageToImageGenerator

SEEDS = [11, 2**62 + 5, 7]
STRENGTHS = torch.tensor([0.25, 1.0, 0.6])
PIPELINES = {"sd": StableDiffusionImg2ImgPipeline, "sdxl": StableDiffusionXLImg2ImgPipeline}


@pytest.fixture(scope="module")
def make(bases):
    def load(kind: str = "sd", **options) -> ImageToImageGenerator:
        return ImageToImageGenerator(**{"model": bases[kind], "steps": 5, "scheduler": "checkpoint", **options})

    return load


def official(bases, kind, images, row, *, steps, guidance, scheduler=None, **prompts) -> torch.Tensor:
    """One image through the published pipeline."""
    pipe = PIPELINES[kind].from_pretrained(bases[kind], low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler or pipe.scheduler
    return pipe(
        image=images[row : row + 1].float() / 255,
        strength=STRENGTHS[row].item(),
        generator=torch.Generator().manual_seed(SEEDS[row]),
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="pt",
        **prompts,
    ).images


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("scheduler", ["checkpoint", "dpm", "turbo", "lcm"])
def test_each_image_of_a_mixed_batch_equals_the_pipeline_at_its_strength(make, bases, kind, scheduler):
    distilled = scheduler in ("turbo", "lcm")
    chosen = {"distilled": scheduler} if distilled else {"scheduler": scheduler}
    generator = make(kind, **chosen, prompt="a cat", negative_prompt="dog")
    images = random_images(3, 16, 16)
    ours = generator.pixels(generator.condition(images), seeds=SEEDS, strength=STRENGTHS)
    options = {"steps": 5, "guidance": 0 if distilled else 7.5, "prompt": "a cat", "negative_prompt": "dog"}
    for row in range(3):
        own = type(generator.base.scheduler).from_config(generator.base.scheduler.config)
        theirs = official(bases, kind, images, row, scheduler=own, **options)
        assert difference(ours[row : row + 1], theirs) < 1e-4


def test_continuous_strength_at_one_is_the_solver_of_diffusers(make):
    """The other solver treats the last step alike: from the last timestep to the clean image."""
    generator = make(scheduler="continuous", steps=5, guidance=2.0)
    condition = generator.condition(random_images(2, 16, 16))
    ours = generator.pixels(condition, seeds=SEEDS[:2], strength=torch.ones(2))
    other = make(scheduler="dpm", guidance=2.0)
    config = {**other.base.scheduler.config, "timestep_spacing": "trailing"}
    other.base.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    theirs = other.pixels(condition, seeds=SEEDS[:2], strength=torch.ones(2))
    assert difference(ours, theirs) < 1e-3


@pytest.mark.parametrize("scheduler", ["continuous", "checkpoint"])
def test_a_view_does_not_depend_on_its_batch(make, scheduler):
    generator = make(scheduler=scheduler)
    condition = generator.condition(random_images(3, 16, 16))
    together = generator.pixels(condition, seeds=SEEDS, strength=STRENGTHS)
    alone = [
        generator.pixels(condition[i : i + 1], seeds=SEEDS[i : i + 1], strength=STRENGTHS[i : i + 1]) for i in range(3)
    ]
    assert difference(together, torch.cat(alone)) < 1e-4


def test_views_leave_the_image_continuously(make):
    generator = make(scheduler="continuous", steps=10)
    condition = generator.condition(random_images(1, 16, 16)).expand(5, -1)
    strengths = torch.tensor([0.02, 0.05, 0.2, 0.21, 0.8])
    views = generator.pixels(condition, seeds=[5] * 5, strength=strengths)
    latents = condition[:1].view(1, 2, *generator.base.latent_shape())[:, 0] * generator.base.vae.config.scaling_factor
    clean = generator.base.decode(latents)
    far = [(view - clean[0]).abs().mean().item() for view in views]
    assert far[0] < far[1] < far[2] < far[4]
    assert abs(far[3] - far[2]) < 0.2 * (far[4] - far[2])


def test_images_are_cut_to_the_rendered_size(make):
    generator = make()
    for height, width in ((16, 16), (33, 70), (9, 12)):
        assert generator.prepare(random_images(1, height, width)[0]).shape == (3, 16, 16)
    larger = make(render_size=24, output_size=11)
    view = larger.generate(larger.condition(random_images(2, 33, 70)), seeds=[1, 2])
    assert view.shape == (2, 3, 11, 11) and view.dtype == torch.uint8


@pytest.mark.parametrize(("scheduler", "strength"), [("continuous", 0.0), ("checkpoint", 0.1), ("checkpoint", 1.1)])
def test_refuses_strengths_out_of_range(make, scheduler, strength):
    generator = make(scheduler=scheduler)
    with pytest.raises(ValueError, match=r"expected 1 strengths in \[0\.\d+, 1\] for 5 steps"):
        generator.pixels(generator.condition(random_images(1, 16, 16)), seeds=[1], strength=torch.tensor([strength]))


def test_conditions_of_another_size_are_one_line(make):
    with pytest.raises(ValueError, match=r"expected 1 conditions of length 512 from this model's condition"):
        make().pixels(torch.zeros(1, 100), seeds=[1])
