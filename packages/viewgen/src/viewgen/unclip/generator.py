"""Stable unCLIP as a generator of views, a noise level for each image (GenView, https://arxiv.org/abs/2403.12003).

The image's CLIP embedding is noised, and with a sinusoidal code of the noise level it conditions the UNet beside the
prompt. The published pipeline takes one level a call; here every image of a batch has its own.

Shapes: B images of a batch, H, W their sides in pixels, S the side CLIP wants, D the embedding's length, C, h, w the
channels and sides of the latents, L the length of what the UNet gets of the image, P prompts, T tokens of each, E their
length.
"""

import inspect
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from viewgen.encoder import ImageEncoder
from viewgen.generator import to_uint8
from viewgen.pretrained import licence_of, local_folder, parts_hash
from viewgen.strength import NOISE_LEVELS
from viewgen.unclip.checkpoint import PARTS, WHERE, Checkpoint, SchedulerName, load_checkpoint, make_scheduler


class UnCLIPGenerator:
    """Views by Stable unCLIP: the same content, and the further from the image the higher the noise level.

    Args:
        model: a Stable unCLIP folder in the layout of diffusers, or a hub id of one; only safetensors are read.
        noise_level: of the image's embedding where no strength is given: 0 (faithful) to the checkpoint's last, 999.
        steps: of denoising; 20 in the paper.
        guidance: towards the image and the prompt, 10 in the paper; 1 is none, and halves the work.
        prompt: the text beside every image; none in the paper.
        negative_prompt: the text that guidance leads away from.
        scheduler: "checkpoint" is the model's own; the others are deterministic too and keep its noise schedule.
        output_size: side of the views in pixels, 512 as in GenView's code; None keeps the checkpoint's (768).
        variant: the version of the weights to read where there are several, for example "fp16".
        dtype: of the networks; latents, noise, guidance and scheduler stay in float32.
        compile: compile the UNet and the decoder on first use; takes minutes, then runs faster on a GPU.
        vae_slicing: decode one image at a time, for less memory.
        device: where it runs.

    Raises:
        ValueError: if there is no such model, or its files are not those of Stable unCLIP.
    """

    name = "unclip"
    supervision = "captions"  # CLIP and Stable Diffusion are trained on images with their captions
    strength_unit = "noise level"
    strength_levels = NOISE_LEVELS
    input_size = None  # ``prepare`` cuts and resizes as CLIP's own preprocessing does

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        noise_level: int = 0,
        steps: int = 20,
        guidance: float = 10.0,
        prompt: str = "",
        negative_prompt: str = "",
        scheduler: SchedulerName = "checkpoint",
        output_size: int | None = 512,
        variant: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        compile: bool = False,
        vae_slicing: bool = False,
        device: str = "cpu",
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, but is {steps}")
        folder = local_folder(model, variant=variant, nested=True, hint=WHERE)
        parts = load_checkpoint(folder, dtype=dtype, variant=variant)
        self.model_hash = parts_hash([folder / part for part in PARTS], variant)
        self.model_id, self.licence = str(model), licence_of(folder, model)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.steps, self.guidance, self.output_size = steps, guidance, output_size
        self.noising, self.normalizer = parts.image_noising_scheduler, parts.image_normalizer
        self.noise_level = int(self._levels(torch.tensor([float(noise_level)]), 1))
        self.scheduler = make_scheduler(parts.scheduler, scheduler)
        self.feature_extractor = parts.feature_extractor
        self.encoder = _embedder(parts, f"{model} image encoder", self.device)
        self.encoder_hash = self.encoder.hash
        self.text = _encode_prompts(parts, [negative_prompt, prompt]).to(self.device, self.dtype)
        self.unet = parts.unet.to(self.device, memory_format=torch.channels_last)
        self.vae = parts.vae.to(self.device, memory_format=torch.channels_last)
        if vae_slicing:
            self.vae.enable_slicing()
        if compile:
            self.unet.compile()
            self.vae.decoder.compile()
        self.settings = {
            "noise_level": noise_level,
            "steps": steps,
            "guidance": guidance,
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "scheduler": scheduler,
            "output_size": output_size,
            "dtype": dtype,
        }

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The images' CLIP embeddings, preprocessed by the checkpoint's own feature extractor."""
        return self.encode(torch.stack([self.prepare(image) for image in images]))

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 S S"]:
        """The first half of ``condition``: resized and cut to the square that CLIP sees."""
        return self._extracted([image], do_rescale=False, do_normalize=False)[0]

    @torch.no_grad()
    def encode(self, prepared: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """The second half of ``condition``: standardized and embedded."""
        pixels = self._extracted(list(prepared), do_resize=False, do_center_crop=False)
        return self.encoder.module(pixels.to(self.device)).cpu()

    def _extracted(self, images: list[Tensor], **left_out: bool) -> Tensor:
        options: dict[str, Any] = {"return_tensors": "pt", "input_data_format": "channels_first", **left_out}
        return self.feature_extractor(images=images, **options)["pixel_values"]

    def generate(
        self, condition: Float[Tensor, "B D"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """One view per embedding; arguments and errors as for ``pixels``."""
        return to_uint8(self.pixels(condition, seeds=seeds, strength=strength), self.output_size)

    @torch.no_grad()
    def pixels(
        self, condition: Float[Tensor, "B D"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B 3 H W"]:
        """The views before they are clipped to [0, 1], resized and rounded.

        Each seed starts one generator, which draws the embedding's noise, then the latents, then what the scheduler
        asks for: the order of diffusers' own pipeline.

        Args:
            condition: CLIP embeddings.
            seeds: one per view.
            strength: noise levels, whole numbers; None takes ``noise_level``.

        Raises:
            ValueError: if a noise level or the embeddings do not fit the checkpoint.
        """
        count, length = len(seeds), self.normalizer.mean.shape[1]
        if condition.shape != (count, length) or not bool(condition.isfinite().all()):
            raise ValueError(
                f"the conditions must be {count} finite embeddings of length {length} from this model's condition(), "
                f"but have shape {tuple(condition.shape)}"
            )
        levels = self._levels(strength, count)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        labels = self._noised(condition.float().cpu(), levels, draws)
        latents = torch.stack([torch.randn(self._latent_shape(), generator=draw) for draw in draws])
        latents = self._denoise(labels.to(self.device, self.dtype), latents.to(self.device), draws)
        return self._decode(latents) / 2 + 0.5

    def _levels(self, strength: Float[Tensor, " B"] | None, count: int) -> Int[Tensor, " B"]:
        if strength is None:
            return torch.full((count,), self.noise_level)
        last = self.noising.config.num_train_timesteps - 1
        fits = strength.shape == (count,) and bool(((strength >= 0) & (strength <= last)).all())
        if not fits or not torch.equal(strength, strength.round()):
            raise ValueError(
                f"give {count} noise levels, whole numbers from 0 to {last}, not {strength.flatten()[:4].tolist()}"
            )
        return strength.long().cpu()

    def _noised(
        self, embeddings: Float[Tensor, "B D"], levels: Int[Tensor, " B"], draws: list[torch.Generator]
    ) -> Float[Tensor, "B L"]:
        """The embeddings, noised where CLIP's statistics are standardized, and the codes of their noise levels."""
        length = embeddings.shape[1]
        noise = torch.stack([torch.randn(length, generator=draw) for draw in draws])
        noised = self.noising.add_noise(self.normalizer.scale(embeddings), noise, levels)
        codes = get_timestep_embedding(levels, length, flip_sin_to_cos=True, downscale_freq_shift=0)
        return torch.cat([self.normalizer.unscale(noised), codes], dim=1)

    def _latent_shape(self) -> tuple[int, int, int]:
        return self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size

    def _denoise(
        self, labels: Float[Tensor, "B L"], latents: Float[Tensor, "B C h w"], draws: list[torch.Generator]
    ) -> Float[Tensor, "B C h w"]:
        """``none + guidance (image - none)`` at each step; none is zeros for the image, and the negative prompt."""
        guided, scheduler = self.guidance > 1, self.scheduler
        text = self.text[1:].expand(len(labels), -1, -1)
        if guided:
            labels = torch.cat([torch.zeros_like(labels), labels])
            text = torch.cat([self.text[:1].expand_as(text), text])
        options = {"generator": draws} if "generator" in inspect.signature(scheduler.step).parameters else {}
        scheduler.set_timesteps(self.steps)  # on the CPU, so that no step waits for the device
        latents = latents * scheduler.init_noise_sigma
        for timestep, on_device in zip(scheduler.timesteps, scheduler.timesteps.to(self.device), strict=True):
            inputs = scheduler.scale_model_input(latents, timestep)
            inputs = torch.cat([inputs, inputs]) if guided else inputs
            inputs = inputs.to(self.dtype, memory_format=torch.channels_last)
            predicted = self.unet(inputs, on_device, text, class_labels=labels, return_dict=False)[0].float()
            if guided:
                none, conditioned = predicted.chunk(2)
                predicted = none + self.guidance * (conditioned - none)
            latents = scheduler.step(predicted, timestep, latents, **options, return_dict=False)[0]
        return latents

    def _decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pixels, about -1 to 1; an image that leaves the range of float16 inside the decoder is decoded in float32."""
        latents = latents / self.vae.config.scaling_factor
        pixels = self.vae.decode(latents.to(self.dtype), return_dict=False)[0].float()
        broken = ~pixels.isfinite().flatten(1).all(dim=1)
        if self.dtype != torch.float32 and bool(broken.any()):
            self.vae.float()
            pixels[broken] = self.vae.decode(latents[broken], return_dict=False)[0]
            self.vae.to(self.dtype)
        return pixels


class _ImageEmbedding(nn.Module):
    """CLIP's vision tower, images to their projected embeddings."""

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        return self.tower(pixels.to(self.tower.dtype)).image_embeds.float()


def _embedder(parts: Checkpoint, name: str, device: torch.device) -> ImageEncoder:
    """The image encoder as ``embed_images`` takes it."""
    return ImageEncoder(
        _ImageEmbedding(parts.image_encoder),
        size=parts.image_encoder.config.image_size,
        mean=tuple(parts.feature_extractor.image_mean),
        std=tuple(parts.feature_extractor.image_std),
        name=name,
        supervision="captions",
        device=device,
    )


def _encode_prompts(parts: Checkpoint, prompts: list[str]) -> Float[Tensor, "P T E"]:
    """The text encoder's tokens of each prompt, padded to its full length."""
    length = parts.tokenizer.model_max_length
    tokens = parts.tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    masked = getattr(parts.text_encoder.config, "use_attention_mask", False)
    with torch.no_grad():
        return parts.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]
