"""The network, a diffusers UNet or a transformer that sees one embedding, and its folder on disk.

Shapes: B images of a batch, C, H, W the channels and sides of what is denoised (pixels or latents), D the embedding.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize, pixel_shuffle, pixel_unshuffle

from genviews_core.files import write_json, writing
from genviews_core.tensor_files import save_tensors
from viewgen.eldm.autoencoder import LOCAL_SAFETENSORS, Autoencoder
from viewgen.eldm.config import ELDMConfig
from viewgen.eldm.dit import EmbeddingDiT
from viewgen.fingerprint import files_hash


class Condition(nn.Module):
    """An embedding, standardized, becomes the UNet's single cross-attention token, or the transformer's condition.

    ``token = Linear((e / |e| - mean) / std)``, with the mean and standard deviation of the training set's normalised
    embeddings per dimension. No condition is the zero vector in place of the standardized embedding.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, cross_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.token = nn.Linear(dim, cross_dim)

    def standardize(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Raw embeddings of the encoder to what ``forward`` takes."""
        return (normalize(embeddings.float(), dim=1) - self.mean.float()) / self.std.float()

    def forward(self, standardized: Float[Tensor, "B D"]) -> Float[Tensor, "B 1 E"]:
        """The token of each image."""
        return self.token(standardized.to(self.token.weight.dtype)).unsqueeze(1)


class Denoiser(nn.Module):
    """Network and condition together: noisy images, timesteps and standardized embeddings to the prediction."""

    def __init__(self, network: UNet2DConditionModel | EmbeddingDiT, condition: Condition, patch: int) -> None:
        super().__init__()
        self.network: Any = network
        self.condition, self.patch = condition, patch
        self.is_dit = isinstance(network, EmbeddingDiT)
        self.add_to_time_embedding = not self.is_dit and network.config["class_embed_type"] is not None

    def forward(
        self, noisy: Float[Tensor, "B C H W"], timesteps: Int[Tensor, " B"], standardized: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B C H W"]:
        """The predicted noise, velocity or clean image, float32."""
        dtype = self.condition.token.weight.dtype
        folded = pixel_unshuffle(noisy.to(dtype), self.patch)
        tokens = self.condition(standardized)
        if self.is_dit:
            predicted = self.network(folded, timesteps, tokens.squeeze(1)).sample
        else:
            labels = standardized.to(dtype) if self.add_to_time_embedding else None
            folded = folded.contiguous(memory_format=torch.channels_last)
            predicted = self.network(folded, timesteps, tokens, class_labels=labels).sample
        return pixel_shuffle(predicted.float(), self.patch)


def build_denoiser(config: ELDMConfig, dim: int, channels: int, side: int) -> Denoiser:
    """A new network with weights drawn from the configuration's seed.

    Args:
        config: its shape.
        dim: length of the embeddings.
        channels: channels of the images or latents that it denoises.
        side: side of the images or latents that it denoises.

    Raises:
        ValueError: if the side is not a multiple of the patch.
    """
    if side % config.patch:
        raise ValueError(f"expected a patch that divides the {side} latents of a side, got {config.patch}")
    folded, folded_side = channels * config.patch**2, side // config.patch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.network == "dit":
            shape = {"width": config.width, "depth": config.depth, "heads": config.heads}
            network = EmbeddingDiT(channels=folded, side=folded_side, **shape)
        else:
            network = build_unet(config, dim, folded, folded_side)
        return Denoiser(network, Condition(dim, config.cond_dim), config.patch)


def build_unet(config: ELDMConfig, dim: int, channels: int, side: int) -> UNet2DConditionModel:
    """A new UNet over ``channels`` of ``side``, for embeddings of length ``dim``."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.attention)]
    heads: Any = tuple(width // config.head_dim for width in config.channels)
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=config.layers_per_block,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        cross_attention_dim=config.cross_dim,
        norm_num_groups=config.norm_groups,
        class_embed_type="simple_projection" if config.add_to_time_embedding else None,
        projection_class_embeddings_input_dim=dim if config.add_to_time_embedding else None,
    )


def build_scheduler(config: ELDMConfig) -> DDPMScheduler:
    """The noise process, as diffusers describes it."""
    return DDPMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=config.beta_schedule,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        prediction_type=config.prediction,
        clip_sample=False,
    )


def save_model(
    folder: Path,
    denoiser: Denoiser,
    noise_process: DDPMScheduler,
    autoencoder: Autoencoder,
    *,
    encoder: dict,
    resolution: int,
) -> None:
    """Write a diffusers-style folder; ``model_index.json`` is written last and marks it as complete.

    Raises:
        ValueError: the folder cannot be written.
    """
    network = "transformer" if denoiser.is_dit else "unet"
    with writing(folder):
        save_diffusers(denoiser.network, folder / network)
        noise_process.save_pretrained(folder / "scheduler")
        if autoencoder.module is not None:
            save_diffusers(autoencoder.module, folder / "vae")
            autoencoder.save_statistics(folder / "vae")
    save_tensors(folder / "condition" / "model.safetensors", denoiser.condition.state_dict())
    write_json(folder / "condition" / "config.json", encoder)
    index = {
        "_class_name": "EmbeddingDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        network: library_and_class(denoiser.network),
        "scheduler": ["diffusers", "DDPMScheduler"],
        "condition": ["viewgen.eldm", "Condition"],
        "resolution": resolution,
        "patch": denoiser.patch,
    }
    if autoencoder.module is not None:
        index["vae"] = library_and_class(autoencoder.module)
    write_json(folder / "model_index.json", index)


def library_and_class(module: nn.Module) -> list[str]:
    """Return what ``model_index.json`` records of a part."""
    kind = type(module)
    return ["viewgen.eldm" if kind.__module__.startswith("viewgen.") else "diffusers", kind.__name__]


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Contents of a finished folder.

    Attributes:
        denoiser: the network, with averaged weights.
        noise_process: the noise process of its training.
        autoencoder: pixels, or the autoencoder of the latents.
        encoder: encoder of its conditions: name, hash, size, mean, std, dim, supervision.
        resolution: side of its images in pixels.
    """

    denoiser: Denoiser
    noise_process: DDPMScheduler
    autoencoder: Autoencoder
    encoder: dict[str, Any]
    resolution: int


def save_diffusers(module: Any, folder: Path) -> None:
    """Save a network of diffusers with the usual permissions; safetensors lets only the owner read what it writes."""
    module.save_pretrained(folder)
    usual = (folder / "config.json").stat().st_mode
    for weights in folder.glob("*.safetensors"):
        weights.chmod(usual)


def load_model(folder: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> SavedModel:
    """Read a finished folder, the network in ``dtype``.

    Raises:
        ValueError: if the folder holds no finished model.
    """
    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"expected a trained E-LDM in {folder}, got no model_index.json; finish the training with "
            "apps/train_generator (viewgen.eldm.train_eldm)"
        )
    index = json.loads((folder / "model_index.json").read_text())
    encoder = json.loads((folder / "condition" / "config.json").read_text())
    network = load_network(folder, dtype)
    cond_dim = network.config["width" if isinstance(network, EmbeddingDiT) else "cross_attention_dim"]
    condition = Condition(encoder["dim"], cond_dim)
    condition.load_state_dict(load_file(folder / "condition" / "model.safetensors"))
    condition.token.to(dtype=dtype)
    noise_process = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    assert isinstance(noise_process, DDPMScheduler)
    channels = len(encoder.get("encoder_mean", (0.0, 0.0, 0.0)))
    return SavedModel(
        denoiser=Denoiser(network, condition, index["patch"]).eval(),
        noise_process=noise_process,
        autoencoder=Autoencoder.load(folder / "vae" if "vae" in index else None, channels=channels),
        encoder=encoder,
        resolution=index["resolution"],
    )


def load_network(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel | EmbeddingDiT:
    """Read the transformer or the UNet of a finished folder."""
    if (folder / "transformer").is_dir():
        return EmbeddingDiT.from_pretrained(folder / "transformer", torch_dtype=dtype, **LOCAL_SAFETENSORS)
    return UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype, **LOCAL_SAFETENSORS)


def folder_hash(folder: str | os.PathLike[str]) -> str:
    """A hash of all files that decide what the model makes."""
    parts = [Path(folder) / part for part in ("condition", "scheduler", "transformer", "unet", "vae")]
    return files_hash((f"{part.name}/{file.name}", file) for part in parts for file in sorted(part.glob("*")))
