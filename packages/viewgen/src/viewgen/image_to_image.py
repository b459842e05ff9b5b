"""Image to image: noise added to the image's own latents up to a strength, and removed again by a text-to-image model.

This is SDEdit (https://arxiv.org/abs/2108.01073). It needs no image encoder, and its strength is continuous: from the
image itself to an image that only the prompt decides.

Shapes: B images of H x W pixels, R the size of the generated images, N the values of mean and deviation of the latents.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from viewgen.diffusion.editing import edit
from viewgen.diffusion.sampling import Guidance, GuidedNetwork, denoise, encode_latents, initial_latents, scale_latents
from viewgen.diffusion.schedulers import DistilledName, SchedulerName
from viewgen.diffusion.stable_diffusion import StableDiffusion, expand_prompts
from viewgen.generator import to_uint8
from viewgen.pretrained import licence_of

DEFAULT_STRENGTH = 0.6
ImageScheduler = Literal["continuous", SchedulerName]


class ImageToImageGenerator:
    """Views that start from the image itself with noise added: the lower the strength, the closer the view.

    Args:
        model: a Stable Diffusion 1.5 or SDXL folder in the layout of diffusers, or a hub id of one; also one of
            their distilled forms, or a short name that `viewgen models` lists. Only safetensors are read.
        steps: denoising steps; by default 20, or those of the distilled model.
        guidance: guidance scale, by default 7.5 as diffusers', and 1 for a distilled model; 1 disables guidance.
        guidance_interval: fractions of the noise process between which guidance applies.
        guidance_reuse: evaluate the unconditional half only at every such step, and reuse the direction between.
        guidance_stop: end the guidance of an image at this cosine between its two predictions; 1 never does.
        prompt: text prompt for every image.
        negative_prompt: the text that guidance leads away from.
        scheduler: "continuous" takes every view from its own strength to the image in ``steps`` steps of second-order
            DPM-Solver++; the others, as in diffusers' pipelines, take the last ``strength * steps`` of their steps.
        distilled: sample a distilled model by its own scheduler, in the last of its steps, without guidance.
        lora: a LoRA file to merge into the UNet (LCM-LoRA, Lightning, Hyper-SD), or its place on the hub.
        lora_scale: strength of the LoRA.
        unet_weights: a file of weights that replaces the UNet's (Lightning), or its place on the hub.
        vae: the folder or hub id of another autoencoder, such as madebyollin/taesd, which is faster.
        render_size: size in pixels of the generated images; None uses the model's own, 512 or 1024.
        output_size: size of the views in pixels, resized from the generated images; None keeps their size.
        variant: variant of the weights if there are several, for example "fp16".
        dtype: dtype of the networks; latents, noise, guidance and scheduler stay in float32.
        compile: compile the UNet and the decoder on first use; takes minutes, then runs faster on a GPU.
        vae_slicing: decode one image at a time, for less memory.
        device: device to run on.

    Raises:
        ValueError: if a model is missing, or its files do not fit each other.
    """

    name = "image-to-image"
    supervision = "captions"
    strength_unit = "fraction of the noise process"
    strength_levels = (0.4, 0.5, 0.6, 0.7, 0.8)
    input_size = None  # ``prepare`` crops and resizes

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_reuse: int = 1,
        guidance_stop: float = 1.0,
        prompt: str = "",
        negative_prompt: str = "",
        scheduler: ImageScheduler = "continuous",
        distilled: DistilledName | None = None,
        lora: str | os.PathLike[str] | None = None,
        lora_scale: float = 1.0,
        unet_weights: str | os.PathLike[str] | None = None,
        vae: str | os.PathLike[str] | None = None,
        render_size: int | None = None,
        output_size: int | None = None,
        variant: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        compile: bool = False,
        vae_slicing: bool = False,
        device: str = "cpu",
    ) -> None:
        self.when = Guidance(interval=guidance_interval, reuse=guidance_reuse, stop=guidance_stop)
        self.continuous = scheduler == "continuous" and distilled is None
        self.base = StableDiffusion(
            model,
            variant=variant,
            dtype=dtype,
            device=device,
            scheduler="dpm" if scheduler == "continuous" else scheduler,
            distilled=distilled,
            lora=lora,
            lora_scale=lora_scale,
            unet_weights=unet_weights,
            vae=vae,
            render_size=render_size,
            compile=compile,
            vae_slicing=vae_slicing,
        )
        self.steps = self.base.steps if steps is None else steps
        if self.steps < 1:
            raise ValueError(f"expected steps of 1 or more, got {steps}")
        self.guidance = guidance if guidance is not None else 7.5 if distilled is None else 1.0
        self.text = self.base.text_conditions([negative_prompt, prompt])
        self.base.prompts.release()
        self.model_hash, self.model_id = self.base.hash, str(model)
        self.encoder_hash = self.model_hash  # the latents of another autoencoder do not fit
        self.licence = licence_of(self.base.folder, model)
        self.output_size = output_size
        self.settings = {
            "steps": self.steps,
            "guidance": self.guidance,
            **self.when.settings(),
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "scheduler": distilled or scheduler,
            "render_size": self.base.render_size,
            "output_size": output_size,
            "dtype": dtype,
        }

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B N"]:
        """Encode images to the mean and deviation of their latents, flattened."""
        return self.encode(torch.stack([self.prepare(image) for image in images]))

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 R R"]:
        """Resize the shorter side to the rendered size and cut out the center: the first half of ``condition``."""
        size, (height, width) = self.base.render_size, image.shape[1:]
        ratio = size / min(height, width)
        sides = (max(size, round(height * ratio)), max(size, round(width * ratio)))
        if sides != (height, width):
            resized = interpolate(image[None].float(), sides, mode="bicubic", antialias=True)[0]
            image = resized.round().clamp(0, 255).to(torch.uint8)
        top, left = (sides[0] - size) // 2, (sides[1] - size) // 2
        return image[:, top : top + size, left : left + size].contiguous()

    @torch.no_grad()
    def encode(self, prepared: UInt8[Tensor, "B 3 R R"]) -> Float[Tensor, "B N"]:
        """Encode prepared images: the second half of ``condition``."""
        pixels = prepared.to(self.base.device).float() / 127.5 - 1
        moments = encode_latents(self.base.vae, pixels, half_overflows=self.base.kind == "sdxl")
        return moments.flatten(1).cpu()

    def generate(
        self, condition: Float[Tensor, "B N"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """Generate one view per image; arguments and errors as for ``pixels``."""
        return to_uint8(self.pixels(condition, seeds=seeds, strength=strength), self.output_size)

    @torch.no_grad()
    def pixels(
        self, condition: Float[Tensor, "B N"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        """Generate views without clipping to [0, 1], resizing and rounding.

        Each seed starts one generator, which draws from the distribution of the image's latents, then the noise, then
        what the scheduler asks for: the order of diffusers' own pipelines.

        Args:
            condition: result of ``condition``.
            seeds: one per view.
            strength: fractions of the noise process, in (0, 1]; 0.6 if not given.

        Raises:
            ValueError: if a strength or the conditions do not fit.
        """
        count, shape = len(seeds), self.base.latent_shape()
        if condition.shape != (count, 2 * math.prod(shape)):
            raise ValueError(
                f"expected {count} conditions of length {2 * math.prod(shape)} from this model's condition(), "
                f"got shape {tuple(condition.shape)}"
            )
        strength = self._checked_strength(strength, count)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        mean, std = condition.float().view(count, 2, *shape).unbind(dim=1)
        sources = mean + std * initial_latents(shape, draws, mean.device)
        sources = scale_latents(self.base.vae, sources).to(self.base.device)
        noise = initial_latents(shape, draws, self.base.device)
        if self.continuous:
            options: dict[str, Any] = {"strength": strength, "steps": self.steps, "clip": False}
            latents = edit(self._network(count), self.base.scheduler, sources, noise, **options)
        else:
            latents = self._by_starts(sources, noise, strength, draws)
        return self.base.decode(latents)

    def _by_starts(
        self, sources: Tensor, noise: Tensor, strength: Float[Tensor, " B"], draws: list[torch.Generator]
    ) -> Tensor:
        """Denoise the images of each starting step together, as multistep schedulers have one history for a batch."""
        scheduler = self.base.scheduler
        kept = [min(int(self.steps * round(float(one), 6)), self.steps) for one in strength]  # 0.7 in float32 is less
        starts = [(self.steps - steps) * scheduler.order for steps in kept]
        latents = torch.empty_like(sources)
        for start in sorted(set(starts)):
            rows = [row for row, one in enumerate(starts) if one == start]
            scheduler.set_timesteps(self.steps)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(start)
            if start >= len(scheduler.timesteps):
                latents[rows] = sources[rows]
                continue
            first = scheduler.timesteps[start : start + 1].repeat(len(rows))
            noised = scheduler.add_noise(sources[rows], noise[rows], first)
            chosen = [draws[row] for row in rows]
            latents[rows] = denoise(self._network(len(rows)), scheduler, noised, chosen, start=start)
        return latents

    def _network(self, count: int) -> GuidedNetwork:
        scale = torch.full((count,), self.guidance)
        distilled = self.base.guided_by_embedding(scale)
        none, given = expand_prompts(self.text, count)
        timesteps = self.base.scheduler.config.num_train_timesteps
        return GuidedNetwork(
            self.base.network, {**given, **distilled}, None if distilled else none, scale, self.when, timesteps
        )

    def _checked_strength(self, strength: Float[Tensor, " B"] | None, count: int) -> Float[Tensor, " B"]:
        strength = torch.full((count,), DEFAULT_STRENGTH) if strength is None else strength.cpu()
        timesteps = self.base.scheduler.config.num_train_timesteps
        least = 2 * self.steps / timesteps if self.continuous else 1 / self.steps
        if strength.shape != (count,) or not bool(((strength >= least - 1e-6) & (strength <= 1)).all()):
            raise ValueError(
                f"expected {count} strengths in [{least:g}, 1] for {self.steps} steps, got {strength[:4].tolist()}"
            )
        return strength
