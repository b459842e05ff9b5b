"""Tiny random models in the official layouts: Stable Diffusion, SDXL, IP-Adapters with their image encoders, LoRAs."""

from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    KandinskyV22Pipeline,
    PNDMScheduler,
    PriorTransformer,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

LATENT_NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
TRANSFORMER = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
KANDINSKY_DIM = 24
TEXT_SIZE = {"sd": 32, "sdxl": 64}


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of single letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=12)


def make_text_config(tokenizer: CLIPTokenizer, **options) -> CLIPTextConfig:
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=12, **ends, **TRANSFORMER, **options)


def make_vision(projection: int, hidden: int = 32) -> CLIPVisionModelWithProjection:
    sizes = {**TRANSFORMER, "hidden_size": hidden}
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(image_size=24, patch_size=8, projection_dim=projection, **sizes)
    )


def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )


def make_unet(kind: str = "sd", **options) -> UNet2DConditionModel:
    """8 x 8 latents; text of size 32 for SD 1.5's layout, 64 for SDXL's."""
    if kind == "sdxl":
        options = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
            **options,
        }
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": (2, 4),
            "cross_attention_dim": TEXT_SIZE.get(kind, 32),
            "layers_per_block": 1,
            "use_linear_projection": True,
            **options,
        }
    )


def save_base(path: Path, kind: str = "sd", *, seed: int = 0, **unet_options) -> Path:
    """Save a Stable Diffusion or SDXL pipeline, with a card."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = make_tokenizer()
        parts = {"tokenizer": tokenizer, "unet": make_unet(kind, **unet_options), "vae": make_vae()}
        parts["text_encoder"] = CLIPTextModel(make_text_config(tokenizer))
        if kind == "sd":
            parts |= {"safety_checker": None, "feature_extractor": None}
            parts["scheduler"] = PNDMScheduler(skip_prk_steps=True, **LATENT_NOISE)
            StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(path)
        else:
            parts["tokenizer_2"] = make_tokenizer()
            parts["text_encoder_2"] = CLIPTextModelWithProjection(make_text_config(tokenizer, projection_dim=32))
            parts["scheduler"] = EulerDiscreteScheduler(**LATENT_NOISE)
            StableDiffusionXLPipeline(**parts).save_pretrained(path)
    (path / "README.md").write_text("---\nlicense: openrail++\n---\n# card\n")
    return path


def attention_weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The added keys and values of an IP-Adapter, numbered as officially; strong, so that the image is seen."""
    state = unet.state_dict()
    cross = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {}
    for index, name in enumerate(cross):
        for part in ("k", "v"):
            shape = state[f"{name}.to_{part}.weight"].shape
            weights[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"] = torch.randn(shape) * 2 / shape[1] ** 0.5
    return weights


def plain_projection(embedding: int, text: int) -> dict[str, torch.Tensor]:
    """Four tokens of a projected CLIP embedding."""
    return {
        "image_proj.proj.weight": torch.randn(4 * text, embedding) / embedding**0.5,
        "image_proj.proj.bias": torch.zeros(4 * text),
        "image_proj.norm.weight": torch.ones(text),
        "image_proj.norm.bias": torch.zeros(text),
    }


def _resampler_layers(width: int) -> dict[str, tuple[int, ...]]:
    shapes = {
        **{f"0.norm{number}.{part}": (width,) for number in (1, 2) for part in ("weight", "bias")},
        "0.to_q.weight": (width, width),
        "0.to_kv.weight": (2 * width, width),
        "0.to_out.weight": (width, width),
        "1.0.weight": (width,),
        "1.0.bias": (width,),
        "1.1.weight": (4 * width, width),
        "1.3.weight": (width, 4 * width),
    }
    return {f"layers.{layer}.{name}": shape for layer in range(4) for name, shape in shapes.items()}


def plus_projection(hidden: int, text: int, width: int = 64, queries: int = 4) -> dict[str, torch.Tensor]:
    """A resampler of four layers over the tokens of the last hidden states but one."""
    shapes = {
        "latents": (1, queries, width),
        "proj_in.weight": (width, hidden),
        "proj_in.bias": (width,),
        "proj_out.weight": (text, width),
        "proj_out.bias": (text,),
        "norm_out.weight": (text,),
        "norm_out.bias": (text,),
        **_resampler_layers(width),
    }
    made = {}
    for name, shape in shapes.items():
        norm = "norm" in name or ".1.0." in name
        made[f"image_proj.{name}"] = (
            torch.full(shape, float(name.endswith("weight"))) if norm else torch.randn(shape) / shape[-1] ** 0.5
        )
    return made


def save_adapters(root: Path, sd: UNet2DConditionModel, sdxl: UNet2DConditionModel) -> Path:
    """Save h94/IP-Adapter's layout: plain and plus for both bases, and the two image encoders (24 of 32, 40 of 48)."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        make_vision(24, 32).save_pretrained(root / "models" / "image_encoder")
        make_vision(40, 48).save_pretrained(root / "sdxl_models" / "image_encoder")
        files = {
            "models/ip-adapter_sd15": plain_projection(24, 32) | attention_weights(sd),
            "models/ip-adapter-plus_sd15": plus_projection(32, 32) | attention_weights(sd),
            "sdxl_models/ip-adapter_sdxl": plain_projection(40, 64) | attention_weights(sdxl),
            "sdxl_models/ip-adapter_sdxl_vit-h": plain_projection(24, 64) | attention_weights(sdxl),
            "sdxl_models/ip-adapter-plus_sdxl_vit-h": plus_projection(32, 64) | attention_weights(sdxl),
        }
        for name, tensors in files.items():
            save_file(tensors, root / f"{name}.safetensors")
    return root


def save_kandinsky(root: Path) -> Path:
    """Save the folders decoder and prior of Kandinsky 2.2."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            in_channels=4,
            out_channels=8,
            sample_size=8,
            addition_embed_type="image",
            encoder_hid_dim_type="image_proj",
            encoder_hid_dim=KANDINSKY_DIM,
            cross_attention_dim=32,
            class_embed_type=None,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=4,
        )
        movq = VQModel(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
            latent_channels=4,
            num_vq_embeddings=12,
            norm_type="spatial",
            vq_embed_dim=4,
        )
        scheduler = DDPMScheduler(
            beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
        )
        KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq).save_pretrained(root / "decoder")
        make_vision(KANDINSKY_DIM).save_pretrained(root / "prior" / "image_encoder")
        crop = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
        CLIPImageProcessor(**crop).save_pretrained(root / "prior" / "image_processor")
        prior = PriorTransformer(
            num_attention_heads=2, attention_head_dim=4, num_layers=1, embedding_dim=KANDINSKY_DIM, num_embeddings=7
        )
        prior.clip_mean.data.normal_(0, 0.3)
        prior.clip_std.data.uniform_(0.5, 2)
        prior.save_pretrained(root / "prior" / "prior")
    return root


def make_lora(unet: UNet2DConditionModel, naming: str, *, rank: int = 4, alpha: float = 2.0) -> dict[str, torch.Tensor]:
    """A LoRA of all attention projections and one convolution, as kohya's tools or PEFT name it."""
    names = [name for name, _ in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    shapes = {name: unet.get_submodule(name).weight.shape for name in [*names, "down_blocks.0.resnets.0.conv1"]}
    made = {}
    for name, shape in shapes.items():
        down, up = torch.randn(rank, *shape[1:]) / 4, torch.randn(shape[0], rank, *[1] * (len(shape) - 2)) / 4
        if naming == "kohya":
            flat = f"lora_unet_{name.replace('.', '_')}"
            made |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            made[f"{flat}.alpha"] = torch.tensor(alpha)
        else:
            made |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    return made


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth random images, uint8 [count, 3, height, width]."""
    draws = np.random.default_rng(count + height)
    coarse = [Image.fromarray(draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)) for _ in range(count)]
    resized = [np.array(image.resize((width, height), Image.Resampling.BICUBIC)) for image in coarse]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference of pixels, clipped as the pipelines clip them."""
    return (first.clamp(0, 1) - second.clamp(0, 1)).abs().max().item()
