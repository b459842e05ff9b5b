"""Tiny random captioners and a tiny random Stable Diffusion, against transformers and diffusers used by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from viewgen.caption import CAPTION_BYTES, CaptionGenerator, decode_captions, encode_captions

TRANSFORMER = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
EYES = {"image_size": 24, "patch_size": 8, **TRANSFORMER}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(f"w{i}" for i in range(40)), "<image>"]
ENDS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
TEXT = {"vocab_size": len(WORDS), "max_position_embeddings": 128, **ENDS}
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} w1{% endif %}"
)
SEEDS = [5, 2**61, 9]


def excite(network: nn.Module) -> nn.Module:
    """Weights so large that what it says depends on what it sees."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    return network


def word_tokenizer() -> BertTokenizer:
    tokenizer = BertTokenizer(
        vocab={word: index for index, word in enumerate(WORDS)}, model_input_names=["input_ids", "attention_mask"]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def save_blip(folder: Path) -> None:
    text = {**TEXT, **TRANSFORMER, "sep_token_id": 3, "encoder_hidden_size": 32}
    config = BlipConfig(text_config=text, vision_config=EYES, projection_dim=32, image_text_hidden_size=32)
    excite(BlipForConditionalGeneration(config)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 24, "width": 24}), word_tokenizer()).save_pretrained(folder)


def clip_images() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})


def save_git(folder: Path) -> None:
    excite(GitForCausalLM(GitConfig(vision_config=EYES, **TEXT, **TRANSFORMER))).save_pretrained(folder)
    GitProcessor(clip_images(), word_tokenizer()).save_pretrained(folder)


def save_encoder_decoder(folder: Path) -> None:
    decoder = GPT2Config(vocab_size=len(WORDS), n_embd=32, n_layer=2, n_head=4, n_positions=40, **ENDS)
    network = VisionEncoderDecoderModel(
        VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**EYES), decoder)
    )
    for config in (network.config, network.generation_config):
        config.decoder_start_token_id, config.pad_token_id = 2, 0
    excite(network).save_pretrained(folder)
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)


def save_llava(folder: Path) -> None:
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **EYES},
        text_config=LlamaConfig(num_key_value_heads=4, **TEXT, **TRANSFORMER),
        image_token_index=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    excite(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    processor = LlavaProcessor(
        clip_images(),
        word_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)


SAVERS = {"blip": save_blip, "git": save_git, "encoder-decoder": save_encoder_decoder, "llava": save_llava}


def save_painter(folder: Path) -> None:
    """A Stable Diffusion of 8 x 8 latents and 16 x 16 pixels that reads single letters and digits."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **TRANSFORMER,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=32,
        layers_per_block=1,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    scheduler = PNDMScheduler(
        skip_prk_steps=True, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=excite(CLIPTextModel(text)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, save in SAVERS.items():
            save(root / name)
        save_painter(root / "painter")
    (root / "painter" / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    (root / "blip" / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n")
    return root


def make(models: Path, captioner: str = "blip", **options) -> CaptionGenerator:
    given = {"model": models / "painter", "steps": 4, "max_tokens": 6, "input_size": None, **options}
    return CaptionGenerator(captioner=models / captioner, **given)


@pytest.fixture(scope="module")
def generator(models) -> CaptionGenerator:
    return make(models)


@pytest.fixture(scope="module")
def pipeline(models) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(models / "painter", low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def random_images(count: int) -> torch.Tensor:
    draws = np.random.default_rng(count)
    coarse = [Image.fromarray(draws.integers(0, 256, (3, 3, 3), dtype=np.uint8)) for _ in range(count)]
    return torch.from_numpy(np.stack([np.array(image.resize((41, 30))) for image in coarse])).permute(0, 3, 1, 2)


def by_hand(folder: Path, name: str, image: torch.Tensor) -> str:
    """Transformers' own classes as their model cards use them, one image."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    greedy = {"do_sample": False, "num_beams": 1, "max_new_tokens": 6}
    if name == "encoder-decoder":
        pixels = ViTImageProcessor.from_pretrained(folder)(picture, return_tensors="pt").pixel_values
        tokens = VisionEncoderDecoderModel.from_pretrained(folder).eval().generate(pixels, **greedy)
        return BertTokenizer.from_pretrained(folder).decode(tokens[0], skip_special_tokens=True)
    if name == "llava":
        processor = LlavaProcessor.from_pretrained(folder)
        text = "<image> Describe this image in one sentence. w1"
        inputs = processor(images=picture, text=text, return_tensors="pt")
        tokens = LlavaForConditionalGeneration.from_pretrained(folder).eval().generate(**inputs, **greedy)
        return processor.decode(tokens[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    processor, kind = {
        "blip": (BlipProcessor, BlipForConditionalGeneration),
        "git": (GitProcessor, GitForCausalLM),
    }[name]
    processor = processor.from_pretrained(folder)
    pixels = processor(images=picture, return_tensors="pt").pixel_values
    tokens = kind.from_pretrained(folder).eval().generate(pixel_values=pixels, **greedy)
    return processor.decode(tokens[0], skip_special_tokens=True)


@pytest.mark.parametrize("name", list(SAVERS))
def test_captions_are_those_of_transformers_used_by_hand(models, name):
    images = random_images(4)
    generator = make(models, name, caption_batch=3)
    captions = generator.captions(generator.condition(images))
    assert captions == [by_hand(models / name, name, image) for image in images]
    assert len(set(captions)) > 1


def test_captions_do_not_depend_on_the_batch(generator):
    images = random_images(5)
    together = generator.condition(images)
    assert together.shape == (5, CAPTION_BYTES) and together.dtype == torch.uint8
    alone = [generator.condition(images[i : i + 1]) for i in (3, 0)]
    assert torch.equal(torch.cat(alone), together[[3, 0]])


@pytest.mark.parametrize("name", ["blip", "git", "llava"])
def test_instructions_reach_the_captioner(models, name):
    images = random_images(4)
    plain, told = (make(models, name, instruction=instruction) for instruction in (None, "w7 w8"))
    before, after = (one.captions(one.condition(images)) for one in (plain, told))
    if name == "blip":  # its captions begin with what it is told
        assert all(caption.startswith("w7 w8 ") for caption in after)
    else:
        assert not any(caption.startswith("w7 w8") for caption in after)
    assert before != after


def test_captions_survive_caches():
    texts = ["a cat", "", "två hästar på en äng", "x" * 300, "é" * 200]
    condition = encode_captions(texts)
    kept = [*texts[:3], "x" * 256, "é" * 128]
    assert decode_captions(condition) == kept
    assert decode_captions(condition.to(torch.float16).float()) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        torch.full((1, 8), 0.5),
        torch.full((1, 8), 300.0),
        torch.tensor([[255, 254]], dtype=torch.uint8),
        torch.zeros(8, dtype=torch.uint8),
        torch.full((1, 8), torch.nan),
    ],
)
def test_refuses_conditions_that_are_no_captions(generator, wrong):
    with pytest.raises(ValueError, match=r"expected captions from condition\(\)"):
        generator.generate(wrong, seeds=[1] * len(wrong))


@pytest.mark.parametrize("negative", ["", "dog"])
def test_views_are_the_pipeline_s_own_image_by_image(models, pipeline, negative):
    captions = ["a cat", "w7 w8", ""]
    generator = make(models, template="an image of {caption}", negative_prompt=negative, guidance=5.0)
    views = generator.generate(encode_captions(captions), seeds=SEEDS)
    assert views.shape == (3, 3, 16, 16) and views.dtype == torch.uint8
    for view, caption, seed in zip(views, captions, SEEDS, strict=True):
        official = pipeline(
            f"an image of {caption}",
            negative_prompt=negative or None,
            num_inference_steps=4,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        ).images[0]
        assert np.abs(official * 255 - view.permute(1, 2, 0).numpy()).max() < 0.51


def test_views_do_not_depend_on_the_batch_even_if_the_scheduler_draws(models, tmp_path):
    root = Path(shutil.copytree(models / "painter", tmp_path / "painter"))
    config = json.loads((root / "scheduler" / "scheduler_config.json").read_text())
    EulerAncestralDiscreteScheduler.from_config(config).save_pretrained(root / "scheduler")
    index = json.loads((root / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "EulerAncestralDiscreteScheduler"]
    (root / "model_index.json").write_text(json.dumps(index))
    generator = make(models, model=root)
    condition = encode_captions(["a cat", "a dog", "a house"])
    together = generator.generate(condition, seeds=SEEDS).int()
    alone = torch.cat([generator.generate(condition[i : i + 1], seeds=SEEDS[i : i + 1]) for i in range(3)]).int()
    assert (together - alone).abs().max() <= 1
    assert (together[0] - together[1]).abs().max() > 10


def test_captions_and_seeds_decide_the_view(generator):
    views = generator.generate(encode_captions(["a cat", "a cat", "dog 7"]), seeds=[1, 2, 1]).int()
    assert (views[0] - views[1]).abs().max() > 20
    assert (views[0] - views[2]).abs().max() > 2
    assert torch.equal(generator.generate(encode_captions(["a cat"]), seeds=[1]).int()[0], views[0])


def test_sizes_and_savings(models, generator):
    condition = encode_captions(["a cat", "dog"])
    rendered = make(models, render_size=24).generate(condition, seeds=[1, 2])
    assert rendered.shape == (2, 3, 24, 24)
    assert make(models, output_size=9).generate(condition, seeds=[1, 2]).shape == (2, 3, 9, 9)
    sparing = make(models, vae_slicing=True, compile=True, input_size=384)
    with torch.compiler.set_stance("force_eager"):
        difference = sparing.generate(condition, seeds=[1, 2]).int() - generator.generate(condition, seeds=[1, 2]).int()
    assert difference.abs().max() <= 1 and sparing.input_size == 384


def test_half_precision_runs(models, generator):
    half = make(models, dtype="bfloat16")
    condition = half.condition(random_images(2))
    views = half.generate(condition, seeds=[1, 2]).float()
    assert (views - generator.generate(condition, seeds=[1, 2]).float()).abs().mean() < 8


def test_supervision_licence_hash_and_settings(models, generator, tmp_path):
    assert generator.supervision == "captions"
    assert generator.licence == "BSD 3-Clause (captioner), CreativeML Open RAIL-M (text to image)"
    assert generator.model_id == f"{models / 'blip'} -> {models / 'painter'}"
    json.dumps(generator.settings)
    assert make(models).model_hash == generator.model_hash != make(models, "git").model_hash
    root = Path(shutil.copytree(models / "painter", tmp_path / "painter"))
    weights = load_file(root / "vae" / "diffusion_pytorch_model.safetensors")
    weights["decoder.conv_in.bias"][0] += 1
    save_file(weights, root / "vae" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    assert make(models, model=root).model_hash != generator.model_hash


def test_refuses_strengths_counts_and_templates(models, generator):
    condition = encode_captions(["a cat"])
    with pytest.raises(ValueError, match="expected no strength"):
        generator.generate(condition, seeds=[1], strength=torch.ones(1))
    with pytest.raises(ValueError, match="one caption per seed, got 1 captions for 2"):
        generator.generate(condition, seeds=[1, 2])
    with pytest.raises(ValueError, match=r"a template that contains \{caption\}"):
        make(models, template="a picture")
    with pytest.raises(ValueError, match="takes no instruction"):
        make(models, "encoder-decoder", instruction="w7")


def test_missing_or_wrong_models_are_refused(models, tmp_path):
    with pytest.raises(ValueError, match=r"cannot find the model .*give captioner="):
        make(models, "nothing")
    with pytest.raises(ValueError, match=r"cannot find the model .*give model="):
        make(models, model=tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"expected a model_index\.json in .*; give model="):
        make(models, model=models / "blip")
    lost = Path(shutil.copytree(models / "encoder-decoder", tmp_path / "lost"))
    (lost / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="lacks a captioner's tokenizer or image processor"):
        make(models, captioner=lost)


def test_weights_that_do_not_fit_are_named(models, tmp_path):
    root = Path(shutil.copytree(models / "painter", tmp_path / "painter"))
    file = root / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"unet do not match its config\.json: 1 missing \(conv_in\.bias\)"):
        make(models, model=root)
    weights["conv_in.bias"] = torch.zeros(7)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 mismatched \(conv_in\.bias\)"):
        make(models, model=root)


def test_pickled_weights_are_refused(models, tmp_path):
    eyes = Path(shutil.copytree(models / "blip", tmp_path / "blip"))
    torch.save(load_file(eyes / "model.safetensors"), eyes / "pytorch_model.bin")
    (eyes / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"expected \.safetensors weights"):
        make(models, captioner=eyes)
