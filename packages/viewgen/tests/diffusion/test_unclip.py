"""A tiny random Stable unCLIP, saved as diffusers saves it, against diffusers' own pipeline and against itself."""

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,
    StableUnCLIPImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from huggingface_hub.utils import filter_repo_objects
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_diffusion import (
    LATENT_NOISE,
    difference,
    make_text_config,
    make_tokenizer,
    make_unet,
    make_vae,
    make_vision,
    random_images,
)
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
)

from viewgen import embed_images, pretrained
from viewgen.unclip import UnCLIPGenerator

DIM = 32
SEEDS = [11, 2**62 + 5, 7]
LEVELS = [0, 400, 130]


def make_parts() -> dict:
    """Random networks of Stable unCLIP's layout: 8 x 8 latents, 16 x 16 pixels."""
    tokenizer = make_tokenizer()
    normalizer = StableUnCLIPImageNormalizer(embedding_dim=DIM)
    normalizer.mean.data.normal_(0, 0.3)
    normalizer.std.data.uniform_(0.5, 2)
    return {
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}),
        "image_encoder": make_vision(DIM),
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(make_text_config(tokenizer)),
        "unet": make_unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * DIM),
        "scheduler": PNDMScheduler(prediction_type="v_prediction", skip_prk_steps=True, **LATENT_NOISE),
        "vae": make_vae(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "unclip"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = make_parts()
        parts["unet"].class_embedding.linear_1.weight.data.mul_(5)  # so that the embedding is seen
        StableUnCLIPImg2ImgPipeline(**parts).save_pretrained(path)
    (path / "README.md").write_text("---\nlicense: openrail++\ntags: [x]\n---\n# card\n")
    return path


@pytest.fixture(scope="module")
def pipeline(folder) -> StableUnCLIPImg2ImgPipeline:
    pipe = StableUnCLIPImg2ImgPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def make(folder: Path, **options) -> UnCLIPGenerator:
    return UnCLIPGenerator(**{"model": folder, "steps": 4, "output_size": None, **options})


@pytest.fixture(scope="module")
def generator(folder) -> UnCLIPGenerator:
    return make(folder)


@pytest.fixture(scope="module")
def condition(generator) -> torch.Tensor:
    return generator.condition(random_images(3, 30, 41))


def official(pipe, condition, seeds, level, *, steps=4, guidance=10.0, prompt="", negative="") -> torch.Tensor:
    """The published pipeline, one level, pixels in [0, 1]."""
    return pipe(
        image_embeds=condition,
        prompt=[prompt] * len(seeds),
        negative_prompt=[negative] * len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        noise_level=level,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="pt",
    ).images


def levels(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize(("guidance", "level"), [(10.0, 0), (10.0, 400), (1.0, 250), (3.5, 999)])
def test_equals_the_published_pipeline(folder, pipeline, condition, guidance, level):
    ours = make(folder, guidance=guidance).pixels(condition, seeds=SEEDS, strength=levels(*[level] * 3))
    assert difference(ours, official(pipeline, condition, SEEDS, level, guidance=guidance)) < 1e-4


def test_equals_the_published_pipeline_with_prompts_and_twenty_steps(folder, pipeline, condition):
    ours = make(folder, steps=20, prompt="a cat", negative_prompt="dog", noise_level=100)
    theirs = official(pipeline, condition, SEEDS, 100, steps=20, prompt="a cat", negative="dog")
    assert difference(ours.pixels(condition, seeds=SEEDS), theirs) < 1e-4
    assert difference(make(folder, steps=20, noise_level=100).pixels(condition, seeds=SEEDS), theirs) > 1e-3


def test_each_image_of_a_mixed_batch_equals_the_published_pipeline_at_its_level(generator, pipeline, condition):
    ours = generator.pixels(condition, seeds=SEEDS, strength=levels(*LEVELS))
    for row, (seed, level) in enumerate(zip(SEEDS, LEVELS, strict=True)):
        theirs = official(pipeline, condition[row : row + 1], [seed], level)
        assert difference(ours[row : row + 1], theirs) < 1e-4
        other = official(pipeline, condition[row : row + 1], [seed], (level + 500) % 1000)
        assert difference(ours[row : row + 1], other) > 1e-2


@pytest.mark.parametrize("scheduler", ["checkpoint", "ddim", "dpm", "euler", "unipc"])
def test_a_view_does_not_depend_on_its_batch(folder, condition, scheduler):
    generator = make(folder, scheduler=scheduler)
    together = generator.pixels(condition, seeds=SEEDS, strength=levels(*LEVELS))
    order = [2, 0, 1]
    moved = generator.pixels(
        condition[order], seeds=[SEEDS[i] for i in order], strength=levels(*[LEVELS[i] for i in order])
    )
    alone = [generator.pixels(condition[i : i + 1], seeds=SEEDS[i : i + 1], strength=levels(LEVELS[i])) for i in order]
    assert difference(together[order], moved) < 1e-4
    assert difference(moved, torch.cat(alone)) < 1e-4


def test_a_scheduler_that_draws_draws_for_each_image(copy, condition):
    config = json.loads((copy / "scheduler" / "scheduler_config.json").read_text())
    EulerAncestralDiscreteScheduler.from_config(config).save_pretrained(copy / "scheduler")
    index = json.loads((copy / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "EulerAncestralDiscreteScheduler"]
    (copy / "model_index.json").write_text(json.dumps(index))
    pipe = StableUnCLIPImg2ImgPipeline.from_pretrained(copy, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    ours = make(copy).pixels(condition, seeds=SEEDS, strength=levels(*LEVELS))
    for row, (seed, level) in enumerate(zip(SEEDS, LEVELS, strict=True)):
        theirs = official(pipe, condition[row : row + 1], [seed], level)
        assert difference(ours[row : row + 1], theirs) < 1e-4


def test_other_schedulers_agree_with_the_checkpoint_s_in_many_steps(folder, condition):
    views = {
        name: make(folder, scheduler=name, steps=60, guidance=1.0).pixels(condition[:1], seeds=[3])
        for name in ("checkpoint", "ddim", "dpm", "euler", "unipc")
    }
    spread = views["checkpoint"].std().item()
    for view in views.values():
        assert (view - views["checkpoint"]).abs().mean() < 0.1 * spread


def test_condition_is_the_checkpoint_s_own_preprocessing_and_encoder(generator, pipeline):
    for images in (random_images(2, 57, 31), random_images(2, 12, 90), random_images(1, 24, 24)):
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        inputs = pipeline.feature_extractor(images=pictures, return_tensors="pt").pixel_values
        with torch.no_grad():
            theirs = pipeline.image_encoder(inputs).image_embeds
        ours = generator.condition(images)
        assert ours.dtype == torch.float32 and ours.device.type == "cpu"
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        prepared = torch.stack([generator.prepare(image) for image in images])
        assert prepared.shape[1:] == (3, 24, 24) and torch.equal(generator.encode(prepared), ours)


def test_views_are_uint8_of_the_size_asked_for(folder, condition):
    view = make(folder, output_size=11).generate(condition, seeds=SEEDS)
    assert view.shape == (3, 3, 11, 11) and view.dtype == torch.uint8
    same = make(folder)
    assert torch.equal(
        same.generate(condition, seeds=SEEDS), (same.pixels(condition, seeds=SEEDS).clamp(0, 1) * 255).round().byte()
    )


def test_seeds_and_levels_make_different_views(generator, condition):
    same = condition[:1].expand(3, -1)
    views = generator.pixels(same, seeds=[1, 2, 1], strength=levels(0, 0, 300))
    assert difference(views[0], views[1]) > 0.05
    assert difference(views[0], views[2]) > 0.01
    again = generator.pixels(same, seeds=[1, 2, 1], strength=levels(0, 0, 300))
    assert torch.equal(views, again)


def test_options_that_only_save_time_or_memory_change_nothing(folder, generator, condition):
    expected = generator.pixels(condition, seeds=SEEDS)
    assert difference(make(folder, vae_slicing=True).pixels(condition, seeds=SEEDS), expected) < 1e-5
    compiled = make(folder, compile=True)
    with torch.compiler.set_stance("force_eager"):
        assert difference(compiled.pixels(condition, seeds=SEEDS), expected) < 1e-5
    assert compiled.settings == generator.settings


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_stays_near(folder, condition, dtype, near):
    exact = make(folder, guidance=2.0).pixels(condition, seeds=SEEDS, strength=levels(*LEVELS))
    half = make(folder, guidance=2.0, dtype=dtype)
    rough = half.pixels(condition, seeds=SEEDS, strength=levels(*LEVELS))
    assert rough.dtype == torch.float32 and half.condition(random_images(1, 24, 24)).dtype == torch.float32
    assert (rough - exact).abs().mean() < near * exact.std()


def test_an_image_that_overflows_float16_in_the_decoder_is_decoded_in_float32(copy, condition):
    weights = load_file(copy / "vae" / "diffusion_pytorch_model.safetensors")
    weights["decoder.conv_in.weight"] *= 2e5  # fits float16, and what it gives does not
    save_file(weights, copy / "vae" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    exact = make(copy).pixels(condition, seeds=SEEDS)
    half = make(copy, dtype="float16")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not half.vae.decode(latents.half()).sample.isfinite().all()
    rough = half.pixels(condition, seeds=SEEDS)
    assert (rough - exact).abs().mean() < 0.1 * exact.std()
    assert half.vae.dtype == torch.float16


def test_supervision_licence_hash_and_settings(folder, generator, copy):
    assert (generator.supervision, generator.licence) == ("captions", "CreativeML Open RAIL++-M")
    assert generator.model_id == str(folder)
    assert generator.settings["steps"] == 4 and "device" not in generator.settings
    json.dumps(generator.settings)
    (copy / "README.md").unlink()
    plain = make(copy)
    assert plain.model_hash == generator.model_hash and plain.licence.startswith("unknown")
    weights = load_file(copy / "unet" / "diffusion_pytorch_model.safetensors")
    weights["conv_in.bias"][0] += 1
    save_file(weights, copy / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    assert make(copy).model_hash != generator.model_hash


def test_variant_weights_are_read_where_there_are_some(copy, generator, condition):
    weights = load_file(copy / "unet" / "diffusion_pytorch_model.safetensors")
    weights["conv_out.weight"] *= 1.5
    save_file(weights, copy / "unet" / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    other = make(copy, variant="fp16")
    assert make(copy).model_hash == generator.model_hash != other.model_hash
    assert difference(other.pixels(condition, seeds=SEEDS), generator.pixels(condition, seeds=SEEDS)) > 1e-3


def test_cached_embeddings_of_its_encoder_are_conditions(generator, tmp_path):
    sources = random_images(3, 24, 24)
    (tmp_path / "images").mkdir()
    for index, image in enumerate(sources):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{index}.png")
    embeddings = embed_images(tmp_path / "images", tmp_path / "embeddings", generator.encoder)
    assert embeddings.encoder_hash == generator.encoder_hash and embeddings.supervision == "captions"
    cached = torch.from_numpy(embeddings.vectors.astype(np.float32))
    torch.testing.assert_close(cached, generator.condition(sources), atol=2e-3, rtol=0)
    assert generator.generate(cached, seeds=SEEDS).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("bad", [(0, 1, 2.5), (0, 1, -1), (0, 1, 1000), (0, 1, float("nan"))])
def test_refuses_levels_that_the_checkpoint_does_not_have(generator, condition, bad):
    with pytest.raises(ValueError, match=r"expected 3 noise levels, integers in 0..999"):
        generator.generate(condition, seeds=SEEDS, strength=levels(*bad))


def test_refuses_conditions_of_another_shape(generator, condition):
    for wrong in (condition[:2], condition[:, :8], condition * torch.nan):
        with pytest.raises(ValueError, match="3 finite embeddings of length 32"):
            generator.generate(wrong, seeds=SEEDS)


def test_refuses_options_out_of_range(folder):
    with pytest.raises(ValueError, match=r"noise levels, integers in 0..999"):
        make(folder, noise_level=1000)
    with pytest.raises(ValueError, match="steps of 1 or more"):
        make(folder, steps=0)


def test_a_missing_model_says_where_to_find_one(tmp_path):
    with pytest.raises(ValueError, match=r"withdrawn from the hub in November 2025.*radames") as caught:
        make(tmp_path / "nothing")
    assert "\n" not in str(caught.value)


def test_a_hub_id_downloads_what_is_read_and_nothing_that_runs(copy, generator, monkeypatch):
    asked = []

    def download(model, **patterns):
        asked.append((model, patterns))
        return str(copy)

    monkeypatch.setattr(pretrained, "snapshot_download", download)
    there = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    halves = {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model-00001-of-2.fp16.safetensors",
    }
    never = {"unet/unet.py", "unet/diffusion_pytorch_model.bin", "whole.safetensors", "whole.ckpt"}
    monkeypatch.setattr(pretrained, "list_repo_files", lambda model: sorted(there | halves | never))
    fetched = make("owner/unclip")
    assert (fetched.model_id, fetched.model_hash) == ("owner/unclip", generator.model_hash)
    make("owner/unclip", variant="fp16")
    plain, half = (set(filter_repo_objects(there | halves | never, **patterns)) for _, patterns in asked)
    twins = {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")}
    assert plain == there and half == (there | halves) - twins


def test_another_kind_of_model_is_refused(copy):
    shutil.rmtree(copy / "image_normalizer")
    with pytest.raises(ValueError, match=r"a Stable unCLIP image variation model, got .* lacks image_normalizer"):
        make(copy)


def test_pickled_weights_and_code_are_refused(copy, tmp_path):
    saved = copy / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(saved), saved.with_suffix(".bin"))
    saved.unlink()
    with pytest.raises(ValueError, match=r"expected \.safetensors weights in .*vae"):
        make(copy)
    (copy / "unet" / "unet.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match=r"got unet.py in"):
        make(copy)
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_are_named(copy):
    file = copy / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    lost = [key for key in weights if "layers.1.mlp" in key]
    weights["stray"] = torch.zeros(1)
    save_file({key: value for key, value in weights.items() if key not in lost}, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"do not match its config\.json: 4 missing \(.*\.\.\.\); 1 unexpected \(.*stray"
    ):
        make(copy)


def test_weights_of_another_shape_are_named(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 mismatched \(conv_in.weight\)"):
        make(copy)


def test_a_broken_weight_file_is_named(copy):
    (copy / "image_encoder" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"cannot read the weights in .*image_encoder"):
        make(copy)


def test_a_scheduler_that_is_not_a_sampler_of_diffusers_is_refused(copy):
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DPMSolverSDEScheduler"}))
    assert hasattr(diffusers, "DPMSolverSDEScheduler")
    with pytest.raises(ValueError, match="got 'DPMSolverSDEScheduler'"):
        make(copy)
