"""Write random weights in the formats of the official files, for speed measurements.

Scale "real" has the sizes of Stable unCLIP 2.1 (768 px, ViT-H), IC-GAN 256 px (icgan_res256), MaskGIT 256 px and
E-LDM's presets "256" and "32".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgpack
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torchvision.models import resnet50
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.autoencoder_trainer import build_networks
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.model import build_denoiser, build_scheduler, save_model
from viewgen.eldm.presets import autoencoder_preset, preset
from viewgen.icgan.checkpoint import checkpoint_shapes
from viewgen.icgan.model import ICGANConfig
from viewgen.maskgit.tokenizer import TokenizerSizes
from viewgen.maskgit.transformers import TransformerSizes

Scale = Literal["real", "small", "tiny"]
Shapes = dict[str, tuple[int, ...]]
EMBEDDING = 2048  # dimension of the embeddings that condition the E-LDM, those of a ResNet-50


def save_random(name: str, scale: Scale, folder: Path) -> dict[str, Any]:
    """Write the weights of a generator, and return the options to load it."""
    savers = {
        "unclip": _save_unclip,
        "icgan": _save_icgan,
        "maskgit": _save_maskgit,
        "eldm": _save_eldm,
        "eldm-32": _save_eldm_32,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return savers[name](scale, folder)


@dataclass(frozen=True, kw_only=True)
class UnCLIPSizes:
    """Sizes of Stable unCLIP that depend on the scale."""

    latents: int  # height and width of the latents
    output: int  # height and width of the views in pixels
    unet: int  # channels of its finest level
    vae: int  # channels of the decoder's finest level
    embedding: int  # dimension of image embeddings
    vision: tuple[int, int]  # width and depth of CLIP's image tower
    text: tuple[int, int]  # width and depth of its text tower


UNCLIP = {
    "real": UnCLIPSizes(latents=96, output=512, unet=320, vae=128, embedding=1024, vision=(1280, 32), text=(1024, 23)),
    "small": UnCLIPSizes(latents=32, output=256, unet=64, vae=32, embedding=256, vision=(320, 8), text=(256, 6)),
    "tiny": UnCLIPSizes(latents=8, output=64, unet=32, vae=32, embedding=32, vision=(80, 1), text=(64, 1)),
}


def _save_unclip(scale: Scale, folder: Path) -> dict[str, Any]:
    sizes = UNCLIP[scale]
    unet: Any = UNet2DConditionModel(
        sample_size=sizes.latents,
        block_out_channels=_levels(sizes.unet),
        attention_head_dim=_levels(max(1, sizes.unet // 64)),  # diffusers' name for the number of heads
        cross_attention_dim=sizes.text[0],
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * sizes.embedding,
    )
    downs: Any = ("DownEncoderBlock2D",) * 4
    ups: Any = ("UpDecoderBlock2D",) * 4
    vae: Any = AutoencoderKL(
        sample_size=8 * sizes.latents,
        block_out_channels=_levels(sizes.vae),
        down_block_types=downs,
        up_block_types=ups,
        layers_per_block=2,
    )
    noise: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    parts: dict[str, Any] = {
        **_towers(sizes),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=sizes.embedding),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "unet": unet,
        "vae": vae,
        "scheduler": PNDMScheduler(prediction_type="v_prediction", skip_prk_steps=True, steps_offset=1, **noise),
    }
    StableUnCLIPImg2ImgPipeline(**parts).save_pretrained(folder)
    return {"model": str(folder), "output_size": sizes.output}


def _levels(first: int) -> Any:
    return tuple(first * times for times in (1, 2, 4, 4))


def _towers(sizes: UnCLIPSizes) -> dict[str, Any]:
    """Return CLIP's two encoders with their preprocessors; the tokenizer supports only the empty prompt."""
    tokenizer = CLIPTokenizer(vocab={"<|startoftext|>": 49406, "<|endoftext|>": 49407}, merges=[], model_max_length=77)
    (seeing, seeing_depth), (reading, reading_depth) = sizes.vision, sizes.text
    vision = CLIPVisionConfig(
        hidden_size=seeing,
        intermediate_size=4 * seeing,
        num_hidden_layers=seeing_depth,
        num_attention_heads=seeing // 80,
        patch_size=14,
        projection_dim=sizes.embedding,
        hidden_act="gelu",
    )
    text = CLIPTextConfig(
        hidden_size=reading,
        intermediate_size=4 * reading,
        num_hidden_layers=reading_depth,
        num_attention_heads=reading // 64,
        hidden_act="gelu",
    )
    return {
        "feature_extractor": CLIPImageProcessor(),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(text),
    }


def _save_icgan(scale: Scale, folder: Path) -> dict[str, Any]:
    """Save the generator and SwAV's ResNet-50, at full size in every scale."""
    channels, attention = (1536, 1536, 768, 768, 384, 192, 96), 3
    if scale == "tiny":
        channels, attention = (32, 32, 16, 16), 1
    shapes = checkpoint_shapes(ICGANConfig(channels=channels, attention=(attention,), chunk=17))
    tensors = {name: torch.ones(shape) if "var" in name else torch.randn(shape) for name, shape in shapes.items()}
    torch.save(tensors, folder / "G_ema_best0.pth")
    swav = {f"module.{name}": tensor for name, tensor in resnet50().state_dict().items() if "fc." not in name}
    torch.save(swav, folder / "swav_800ep_pretrain.pth.tar")
    return {"weights": str(folder), "features": str(folder / "swav_800ep_pretrain.pth.tar")}


def _save_maskgit(scale: Scale, folder: Path) -> dict[str, Any]:
    """Save the two flax files; classes are random."""
    tokenizer, transformer = TokenizerSizes(), TransformerSizes()
    if scale == "small":
        tokenizer = replace(tokenizer, stem=64, widths=(64, 64, 128, 128, 256))
        transformer = replace(transformer, layers=12, width=384, hidden=1536, heads=8)
    if scale == "tiny":
        tokenizer = replace(tokenizer, stem=32, widths=(32, 32, 32))
        transformer = replace(transformer, cells=16, layers=2, width=32, hidden=64, heads=2)
    files = {"tokenizer": tokenizer_shapes(tokenizer), "transformer": transformer_shapes(transformer)}
    for name, shapes in files.items():
        _write_flax(folder / f"{name}_checkpoint", shapes)
    return {**{name: str(folder / f"{name}_checkpoint") for name in files}, "label": "random"}


def tokenizer_shapes(sizes: TokenizerSizes) -> Shapes:
    """Return the names and shapes of the official VQGAN's arrays."""
    coarse, ups = sizes.widths[-1], sizes.widths[:0:-1]
    shapes: Shapes = {
        **_dense("encoder/Conv_1", 1, 1, coarse, sizes.dim),
        **_dense("decoder/Conv_0", 3, 3, sizes.dim, coarse),
        **_dense(f"decoder/Conv_{len(sizes.widths)}", 3, 3, sizes.widths[0], 3),
        **_norm("encoder/GroupNorm_0", coarse),
        **_norm("decoder/GroupNorm_0", sizes.widths[0]),
        "encoder/Conv_0/kernel": (3, 3, 3, sizes.stem),
        "quantizer/codebook": (sizes.codes, sizes.dim),
    }
    for index, width in enumerate(ups, start=1):
        shapes |= _dense(f"decoder/Conv_{index}", 3, 3, width, width)
    levels = {"encoder": (sizes.stem, *sizes.widths, coarse), "decoder": (coarse, coarse, *sizes.widths[::-1])}
    for part, (before, *widths) in levels.items():
        for index, width in enumerate(width for width in widths for _ in range(sizes.blocks)):
            name = f"{part}/ResBlock_{index}"
            shapes |= _norm(f"{name}/GroupNorm_0", before) | _norm(f"{name}/GroupNorm_1", width)
            shapes |= {f"{name}/Conv_0/kernel": (3, 3, before, width), f"{name}/Conv_1/kernel": (3, 3, width, width)}
            shapes |= {f"{name}/Conv_2/kernel": (1, 1, width, width)} if before != width else {}
            before = width
    return shapes


def transformer_shapes(sizes: TransformerSizes) -> Shapes:
    """Return the names and shapes of the official transformer's arrays."""
    words, width, head = sizes.codes + sizes.classes + 1, sizes.width, sizes.width // sizes.heads
    shapes: Shapes = {
        "Embed_0/word_embeddings/embedding": (words, width),
        "Embed_0/position_embeddings/embedding": (sizes.cells + 1, width),
        "MlmLayer_0/mlm_bias/bias": (words,),
        **_norm("Embed_0/embeddings_ln", width),
        **_norm("MlmLayer_0/mlm_ln", width),
        **_dense("MlmLayer_0/mlm_dense", width, width),
    }
    for index in range(sizes.layers):
        attention, mlp = (f"TransformerLayer_{index}/{part}" for part in ("Attention_0", "Mlp_0"))
        for part in ("query", "key", "value"):
            shapes[f"{attention}/self_attention/{part}/kernel"] = (width, sizes.heads, head)
            shapes[f"{attention}/self_attention/{part}/bias"] = (sizes.heads, head)
        shapes |= _dense(f"{attention}/self_attention/out", sizes.heads, head, width)
        shapes |= _norm(f"{attention}/attention_output_ln", width) | _norm(f"{mlp}/layer_output_ln", width)
        shapes |= _dense(f"{mlp}/intermediate_output", width, sizes.hidden)
        shapes |= _dense(f"{mlp}/layer_output", sizes.hidden, width)
    return shapes


def _dense(name: str, *kernel: int) -> Shapes:
    return {f"{name}/kernel": kernel, f"{name}/bias": kernel[-1:]}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _write_flax(path: Path, shapes: Shapes) -> None:
    """Write random arrays as nested dictionaries in the format of flax.serialization.to_bytes."""
    tree: dict[str, Any] = {}
    for name, shape in shapes.items():
        *parents, leaf = f"params/{name}".split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        array = torch.ones(shape) if leaf == "scale" else torch.randn(shape) / math.sqrt(math.prod(shape[:-1]))
        place[leaf] = msgpack.ExtType(1, msgpack.packb((shape, "float32", array.numpy().tobytes())))
    with path.open("wb") as stream:
        msgpack.pack(tree, stream)


def _save_eldm(scale: Scale, folder: Path) -> dict[str, Any]:
    """Save the preset "256" with its autoencoder, as after a training."""
    config, coder = preset("256"), autoencoder_preset("256")
    if scale == "small":
        config, coder = replace(config, channels=(64, 128, 256)), replace(coder, channels=(32, 64, 128, 128))
    if scale == "tiny":
        config = replace(config, resolution=64, channels=(32, 32, 32), cross_dim=32)
        coder = replace(coder, resolution=64, channels=(32, 32, 32, 32))
    autoencoder = Autoencoder(build_networks(coder)[0])
    channels, side, _ = coder.latent_shape
    return _save_denoiser(config, autoencoder, channels, side, folder)


def _save_eldm_32(scale: Scale, folder: Path) -> dict[str, Any]:
    """Save the preset "32", which denoises pixels."""
    config = preset("32")
    if scale != "real":
        config = replace(
            config, channels=(64, 64, 64, 64) if scale == "small" else (32,) * 4, head_dim=32, cross_dim=32
        )
    return _save_denoiser(config, Autoencoder(None), 3, config.resolution, folder)


def _save_denoiser(
    config: ELDMConfig, autoencoder: Autoencoder, channels: int, side: int, folder: Path
) -> dict[str, Any]:
    about = {"dim": EMBEDDING, "encoder_hash": "random", "encoder_size": 224, "supervision": "none"}
    denoiser, noise = build_denoiser(config, EMBEDDING, channels, side), build_scheduler(config)
    save_model(folder, denoiser, noise, autoencoder, encoder=about, resolution=config.resolution)
    return {"folder": str(folder)}
