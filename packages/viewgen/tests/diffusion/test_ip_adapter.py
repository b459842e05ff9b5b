"""IP-Adapter on tiny random models in the official layouts, against diffusers' own pipelines and against itself."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_diffusion import difference, random_images

from viewgen import measure_statistics
from viewgen.ip_adapter import IPAdapterGenerator

SEEDS = [11, 2**62 + 5, 7]
LEVELS = torch.tensor([0.0, 400.0, 130.0])
ADAPTERS = {
    "plain": ("sd", "models/ip-adapter_sd15.safetensors"),
    "plus": ("sd", "models/ip-adapter-plus_sd15.safetensors"),
    "xl": ("sdxl", "sdxl_models/ip-adapter_sdxl.safetensors"),
    "xl-vit-h": ("sdxl", "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"),
    "xl-plus": ("sdxl", "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors"),
}
PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


@pytest.fixture(scope="module")
def make(bases, adapters):
    """Load a generator with an adapter by its short name."""

    def load(which: str = "plain", **options) -> IPAdapterGenerator:
        kind, file = ADAPTERS[which]
        return IPAdapterGenerator(**{"model": bases[kind], "adapter": adapters / file, "steps": 4, **options})

    return load


@pytest.fixture(scope="module")
def official(bases, adapters):
    """Diffusers' pipeline with the adapter, given embeddings or images."""

    def load(which: str, *, scale: float = 1.0, scheduler=None):
        kind, file = ADAPTERS[which]
        pipe = PIPELINES[kind].from_pretrained(bases[kind], low_cpu_mem_usage=False)
        folder, name = file.split("/")
        encoder = "models/image_encoder" if "vit-h" in file else "image_encoder"
        pipe.load_ip_adapter(
            adapters, subfolder=folder, weight_name=name, image_encoder_folder=encoder, low_cpu_mem_usage=False
        )
        pipe.set_ip_adapter_scale(scale)
        pipe.set_progress_bar_config(disable=True)
        if scheduler is not None:
            pipe.scheduler = scheduler(pipe.scheduler.config)
        return pipe

    return load


def paint(pipe, embeds, draws, *, steps=4, guidance=7.5, prompt="", negative="", nothing=None) -> torch.Tensor:
    """Pixels in [0, 1] from one embedding: of a batch the pipelines show every image to all. The draws continue."""
    embeds = embeds.unsqueeze(1)
    if guidance > 1:
        nothing = torch.zeros_like(embeds) if nothing is None else nothing.unsqueeze(1).expand_as(embeds)
        embeds = torch.cat([nothing, embeds])
    return pipe(
        prompt=[prompt] * len(draws),
        negative_prompt=[negative] * len(draws),
        ip_adapter_image_embeds=[embeds],
        generator=draws,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="pt",
    ).images


def draws_of(seeds) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def statistics(make, tmp_path_factory) -> dict[str, Path]:
    """Measured on random images, by adapter."""
    root = tmp_path_factory.mktemp("statistics")
    (root / "images").mkdir()
    for index, image in enumerate(random_images(12, 30, 41)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / "images" / f"{index}.png")
    (root / "images" / "broken.png").write_bytes(b"no image")
    for which in ADAPTERS:
        measure_statistics(root / "images", root / f"{which}.safetensors", make(which), batch_size=5)
    return {which: root / f"{which}.safetensors" for which in ADAPTERS} | {"images": root / "images"}


@pytest.mark.parametrize("which", ADAPTERS)
def test_equals_the_official_pipeline_from_images(make, official, which):
    images = random_images(3, 30, 41)
    generator = make(which)
    ours = generator.pixels(generator.condition(images), seeds=SEEDS)
    pipe = official(which)
    for row, seed in enumerate(SEEDS):
        theirs = pipe(
            prompt="",
            negative_prompt="",
            ip_adapter_image=Image.fromarray(images[row].permute(1, 2, 0).numpy()),
            generator=torch.Generator().manual_seed(seed),
            num_inference_steps=4,
            guidance_scale=7.5,
            output_type="pt",
        ).images
        assert difference(ours[row : row + 1], theirs) < 1e-4
    assert difference(ours[:1], ours[1:2]) > 0.02


@pytest.mark.parametrize("which", ADAPTERS)
def test_each_image_of_a_mixed_batch_equals_the_pipeline_at_its_noise(make, official, statistics, which):
    generator = make(which, statistics=statistics[which], prompt="a cat", negative_prompt="dog", adapter_scale=0.6)
    condition = generator.condition(random_images(3, 30, 41))
    ours = generator.pixels(condition, seeds=SEEDS, strength=LEVELS)
    pipe, measured = official(which, scale=0.6), load_file(statistics[which])
    nothing = None if condition.ndim == 2 else generator.images.unconditional()
    for row, (seed, level) in enumerate(zip(SEEDS, LEVELS.long(), strict=True)):
        draws = draws_of([seed])
        noise = torch.randn(condition.shape[1:], generator=draws[0])
        clean = (condition[row] - measured["mean"]) / measured["std"]
        noised = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(clean, noise, level[None])
        noised = (noised * measured["std"] + measured["mean"]).unsqueeze(0)
        theirs = paint(pipe, noised, draws, prompt="a cat", negative="dog", nothing=nothing)
        assert difference(ours[row : row + 1], theirs) < 1e-4
    assert difference(ours, generator.pixels(condition, seeds=SEEDS)) > 0.01


SCHEDULERS = {
    "lcm": lambda config: diffusers.LCMScheduler.from_config(config),
    "turbo": lambda config: diffusers.EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing"),
    "lightning": lambda config: diffusers.EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing"),
    "lightning-x0": lambda config: diffusers.EulerDiscreteScheduler.from_config(
        config, timestep_spacing="trailing", prediction_type="sample"
    ),
    "hyper-sd": lambda config: diffusers.DDIMScheduler.from_config(  # the official bases say clip_sample: false
        config, timestep_spacing="trailing", clip_sample=False
    ),
    "tcd": lambda config: diffusers.TCDScheduler.from_config(config),
}


@pytest.mark.parametrize("distilled", SCHEDULERS)
@pytest.mark.parametrize(("which", "steps"), [("plain", 4), ("xl", 1)])
def test_a_distilled_form_equals_the_pipeline_with_its_scheduler(make, official, distilled, which, steps):
    generator = make(which, distilled=distilled, steps=steps)
    assert generator.guidance == 1.0
    condition = generator.condition(random_images(2, 30, 41))
    ours = generator.pixels(condition, seeds=SEEDS[:2])
    pipe = official(which, scheduler=SCHEDULERS[distilled])
    for row, seed in enumerate(SEEDS[:2]):
        theirs = paint(pipe, condition[row : row + 1], draws_of([seed]), steps=steps, guidance=0)
        assert difference(ours[row : row + 1], theirs) < 1e-4


@pytest.mark.parametrize("scheduler", ["checkpoint", "ddim", "dpm", "euler", "unipc", "lcm", "turbo", "tcd"])
def test_a_view_does_not_depend_on_its_batch(make, statistics, scheduler):
    chosen = {"distilled": scheduler} if scheduler in SCHEDULERS else {"scheduler": scheduler}
    generator = make(statistics=statistics["plain"], **chosen)
    condition = generator.condition(random_images(3, 30, 41))
    together = generator.pixels(condition, seeds=SEEDS, strength=LEVELS)
    order = [2, 0, 1]
    moved = generator.pixels(condition[order], seeds=[SEEDS[i] for i in order], strength=LEVELS[order])
    alone = [generator.pixels(condition[i : i + 1], seeds=SEEDS[i : i + 1], strength=LEVELS[i : i + 1]) for i in order]
    assert difference(together[order], moved) < 1e-4
    assert difference(moved, torch.cat(alone)) < 1e-4
    assert difference(together[:1], together[1:2]) > 0.02


def test_the_adapter_scale_weighs_the_image(make):
    condition = make().condition(random_images(3, 30, 41))
    strong, weak, none = (make(adapter_scale=scale).pixels(condition, seeds=[5, 5, 5]) for scale in (1.0, 0.3, 0.0))
    assert difference(none[0], none[1]) < 1e-5
    spread = [(views - views.mean(dim=0)).abs().mean().item() for views in (none, weak, strong)]
    assert spread[0] < spread[1] < spread[2]


def test_statistics_are_those_of_the_conditions_and_of_readable_images(make, statistics):
    for which in ("plain", "plus"):
        conditions = make(which).condition(random_images(12, 30, 41)).flatten(0, -2)
        measured = load_file(statistics[which])
        torch.testing.assert_close(measured["mean"], conditions.mean(dim=0), atol=1e-4, rtol=0)
        torch.testing.assert_close(measured["std"], conditions.std(dim=0, correction=0), atol=1e-4, rtol=0)


def test_statistics_of_no_images_are_an_error(make, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="expected two or more readable images"):
        measure_statistics(tmp_path / "images", tmp_path / "out.safetensors", make())


def test_settings_name_what_decides_a_view(make, statistics):
    generator = make(statistics=statistics["plain"], prompt="a cat")
    json.dumps(generator.settings)
    assert generator.settings["steps"] == 4 and generator.settings["prompt"] == "a cat"
    assert len(generator.settings["statistics"]) == 32
    assert (generator.supervision, generator.licence) == ("captions", "CreativeML Open RAIL++-M")
    assert make("plus").model_hash != make().model_hash == generator.model_hash
    assert make("plus").encoder_hash == make("xl-plus").encoder_hash != make("xl").encoder_hash


@pytest.mark.parametrize("strength", [LEVELS + 0.5, LEVELS - 1, LEVELS + 600])
def test_refuses_levels_that_the_schedule_does_not_have(make, statistics, strength):
    generator = make(statistics=statistics["plain"])
    with pytest.raises(ValueError, match=r"expected 3 noise levels, integers in 0..999"):
        generator.generate(generator.condition(random_images(3, 24, 24)), seeds=SEEDS, strength=strength)


def test_a_strength_without_statistics_says_how_to_measure_them(make):
    generator = make()
    with pytest.raises(ValueError, match="viewgen statistics"):
        generator.generate(generator.condition(random_images(3, 24, 24)), seeds=SEEDS, strength=LEVELS)


def test_an_adapter_of_another_base_is_one_line(bases, adapters):
    with pytest.raises(
        ValueError, match=r"does not fit its base: it has .* of text size 64, the base .* of 32"
    ) as error:
        IPAdapterGenerator(model=bases["sd"], adapter=adapters / ADAPTERS["xl"][1])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["other", "empty", "no projection", "missing key", "face"])
def test_a_file_that_is_no_whole_adapter_is_one_line(bases, adapters, tmp_path, damage):
    root = shutil.copytree(adapters, tmp_path / "IP-Adapter")
    path = root / ADAPTERS["plain"][1]
    tensors = load_file(path)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        save_file({"weight": torch.zeros(2)}, path)
    else:
        dropped = {"no projection": "image_proj", "missing key": "image_proj.norm.bias", "face": "image_proj.proj.w"}
        save_file({key: value for key, value in tensors.items() if not key.startswith(dropped[damage])}, path)
    with pytest.raises(ValueError, match=str(path)) as error:
        IPAdapterGenerator(model=bases["sd"], adapter=path)
    assert "\n" not in str(error.value)


def test_an_encoder_of_another_size_is_one_line(bases, adapters, tmp_path):
    path = tmp_path / "ip-adapter_sd15.safetensors"
    shutil.copy(adapters / ADAPTERS["plain"][1], path)
    with pytest.raises(ValueError, match="expected an image encoder with a CLIP embedding of size 24 beside"):
        IPAdapterGenerator(model=bases["sd"], adapter=path)
    with pytest.raises(ValueError, match=r"takes a CLIP embedding of size 24, that of .* has 40"):
        IPAdapterGenerator(model=bases["sd"], adapter=path, image_encoder=adapters / "sdxl_models" / "image_encoder")
    given = adapters / "models" / "image_encoder"
    assert IPAdapterGenerator(model=bases["sd"], adapter=path, image_encoder=given).images.dim == 24


def test_pickled_adapters_are_not_read(bases):
    with pytest.raises(ValueError, match=r"expected a \.safetensors file"):
        IPAdapterGenerator(model=bases["sd"], adapter="h94/IP-Adapter/models/ip-adapter_sd15.bin")
