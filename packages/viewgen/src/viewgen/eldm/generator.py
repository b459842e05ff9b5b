"""The trained E-LDM as a generator of views (Gen-SIS, https://arxiv.org/abs/2412.01672).

Shapes: B images of a batch, K their channels, H, W their sides in pixels, D the embedding's length.
"""

import math
import os
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from viewgen.diffusion.editing import edit
from viewgen.eldm.model import folder_hash, load_model
from viewgen.eldm.sampling import (
    WHOLE,
    Sampler,
    guided_prediction,
    in_interval,
    initial_noise,
    make_sampler,
    sample,
)
from viewgen.encoder import ImageEncoder, load_encoder

DEFAULT_STRENGTH = 0.6
Precision = Literal["float32", "bfloat16", "float16"]


class ELDMGenerator:
    """Views from embeddings: the source's own, or one between two images.

    Args:
        folder: folder written by ``train_eldm``.
        encoder: the encoder it was trained with, as ``load_encoder`` names it; needed for images without embeddings.
        from_image: start from the source image with noise added according to the strength, instead of pure noise
            (SDEdit, https://arxiv.org/abs/2108.01073): the lower the strength, the closer the view. The condition is
            then the image in addition to its embedding, which the encoder computes or which was cached. Interpolated
            views start from both images.
        steps: network evaluations per view.
        guidance: guidance scale; 1 disables guidance.
        sampler: "dpm" or "ddim".
        device: device to run on, for example "cuda:0".
        guidance_interval: fractions of the noise process between which guidance applies; elsewhere the network is
            evaluated once, not twice (https://arxiv.org/abs/2404.07724).
        dtype: dtype of the network and, if "bfloat16", of the decoder; noise, guidance and sampler stay in float32.
        compile: compile the network; the first batch takes a minute or more.

    Raises:
        ValueError: if the folder holds no finished model, or was trained on another encoder's embeddings; if an option
            is out of range; if ``from_image`` is set with a sampler other than "dpm".
    """

    name = "eldm"
    licence = "as the training images"
    strength_unit = "fraction of the noise process"
    strength_levels = (0.4, 0.5, 0.6, 0.7, 0.8)

    def __init__(
        self,
        folder: str | os.PathLike[str],
        encoder: str | ImageEncoder | nn.Module | None = None,
        *,
        from_image: bool = False,
        steps: int = 12,
        guidance: float = 4.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        sampler: Sampler = "dpm",
        device: str | torch.device = "cpu",
        dtype: Precision | torch.dtype = "float32",
        compile: bool = False,
    ) -> None:
        precision: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        model = load_model(folder, precision)
        most = model.noise_process.config["num_train_timesteps"]
        if not 1 <= steps <= most:
            raise ValueError(f"expected steps of 1 to {most}, got {steps}; leave it out for the default, 12")
        if not 0 <= guidance_interval[0] < guidance_interval[1] <= 1:
            raise ValueError(f"expected a guidance_interval (low, high) in [0, 1], got {guidance_interval}; widen it")
        self.device = torch.device(device)
        self.denoiser = model.denoiser.to(self.device).to(memory_format=torch.channels_last)
        if compile:
            self.denoiser.network.compile()
        self.noise_process, self.autoencoder = model.noise_process, model.autoencoder.to(self.device)
        self.autoencoder.bf16 = precision is torch.bfloat16
        self.steps, self.guidance, self.guidance_interval = steps, guidance, tuple(guidance_interval)
        self.sampler: Sampler = sampler
        self.resolution, about = model.resolution, model.encoder
        self.channels: int = self.autoencoder.channels
        self.value_range = tuple(about["encoder_value_range"]) if about.get("encoder_value_range") else None
        self.encoder_hash: str = about["encoder_hash"]
        self.supervision = about["supervision"]
        self.model_hash = folder_hash(folder)
        self.model_id = f"eldm-{self.resolution}px"
        self.latent_shape = self.autoencoder.latent_shape(self.resolution)
        self.input_size: int = about["encoder_size"]
        self.settings = {"steps": steps, "guidance": guidance, "sampler": sampler, "dtype": str(precision)}
        if self.guidance_interval != WHOLE:
            self.settings["guidance_interval"] = list(self.guidance_interval)
        self.encoder = _checked(encoder, about, self.device)
        self.from_image = from_image
        if from_image:
            self.settings["from_image"] = True
            self.input_size = self.resolution if self.encoder is None else max(self.input_size, self.resolution)
            if sampler != "dpm":
                raise ValueError(f"expected sampler 'dpm' with from_image, got {sampler!r}")
        make_sampler(self.noise_process, sampler)

    def condition(self, images: UInt8[Tensor, "B K H W"]) -> Float[Tensor, "B D"]:
        """Return the images' embeddings; with ``from_image``, each is followed by the flattened clean image or latents.

        Raises:
            ValueError: if the generator was made without an encoder.
        """
        if self.encoder is None:
            raise ValueError(
                "expected the encoder that this E-LDM was trained with, got none; give it (--encoder, encoder= in "
                "Python), or embeddings of these images (--embeddings, embeddings= in Python)"
            )
        embeddings = self.encoder(images)
        return self.condition_with(images, embeddings) if self.from_image else embeddings

    def condition_with(
        self, images: UInt8[Tensor, "B K H W"], embeddings: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B L"]:
        """Return the images' embeddings, each followed by the values of the clean image or latents; L in all."""
        source = self.autoencoder.encode(self._resize(images)).flatten(1)
        return torch.cat([embeddings.to(source.device), source], dim=1)

    def generate(
        self, condition: Float[Tensor, "B D"], *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B K H W"]:
        """Generate one image per condition, at the training resolution.

        Args:
            condition: result of ``condition``, or embeddings if ``from_image`` is not set.
            seeds: one per view.
            strength: with ``from_image``, the fraction of the noise process that each view goes through, in
                [2 steps / timesteps, 1]; 0.6 if not given.

        Raises:
            ValueError: if a strength is given without ``from_image`` (the generator then sees only an embedding of the
                source) or is out of range, or if the conditions do not have the length used in training.
        """
        dim, pixels = len(self.denoiser.condition.mean), math.prod(self.latent_shape) * self.from_image
        if strength is not None and not self.from_image:
            raise ValueError("expected no strength without from_image, got one; leave it None, or set from_image")
        if condition.shape[1] != dim + pixels:
            parts = f"embeddings of length {dim}" + (f" and {pixels} values of the image" if pixels else "")
            raise ValueError(f"expected {parts}, got conditions of length {condition.shape[1]}")
        embeddings, sources = condition.to(self.device).split([dim, pixels], dim=1)
        noise = initial_noise(seeds, self.latent_shape).to(self.device)
        standardized = self.denoiser.condition.standardize(embeddings)
        clip = self.autoencoder.module is None
        if self.from_image:
            strength = self._validate_strength(strength, len(seeds))
            source = sources.float().view(-1, *self.latent_shape)
            low, high = self.guidance_interval

            def predict(images: Tensor, timestep: Tensor) -> Tensor:
                guided = in_interval(timestep, (low, high), self.noise_process.config["num_train_timesteps"])
                return guided_prediction(self.denoiser, images, timestep, standardized, self.guidance, guided)

            latents = edit(predict, self.noise_process, source, noise, strength=strength, steps=self.steps, clip=clip)
        else:
            scheduler = make_sampler(self.noise_process, self.sampler)
            options = {"steps": self.steps, "guidance": self.guidance, "guidance_interval": self.guidance_interval}
            latents = sample(self.denoiser, scheduler, standardized, noise, clip=clip, **options)
        return self.autoencoder.decode(latents).cpu()

    def _resize(self, images: UInt8[Tensor, "B K H W"]) -> UInt8[Tensor, "B K R R"]:
        if images.shape[-2:] == (self.resolution, self.resolution):
            return images
        sides = (self.resolution, self.resolution)
        resized = interpolate(images.float(), sides, mode="bicubic", antialias=True)
        return resized.round().clamp(0, 255).to(torch.uint8)

    def _validate_strength(self, strength: Float[Tensor, " B"] | None, count: int) -> Float[Tensor, " B"]:
        strength = torch.full((count,), DEFAULT_STRENGTH) if strength is None else strength
        minimum = 2 * self.steps / self.noise_process.config["num_train_timesteps"]
        if not bool(((strength >= minimum) & (strength <= 1)).all()):
            raise ValueError(f"expected strengths in [{minimum:g}, 1] for {self.steps} steps, got {strength.tolist()}")
        return strength


def _checked(encoder: str | ImageEncoder | nn.Module | None, about: dict, device: torch.device) -> ImageEncoder | None:
    """The encoder, wrapped as at training, and its weights compared with those of training."""
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, size=about["encoder_size"], supervision=about["supervision"], device=device)
    if isinstance(encoder, nn.Module):
        encoder = ImageEncoder(
            encoder,
            size=about["encoder_size"],
            mean=tuple(about["encoder_mean"]),
            std=tuple(about["encoder_std"]),
            value_range=tuple(about["encoder_value_range"]) if about.get("encoder_value_range") else None,
            name=about["encoder_name"],
            supervision=about["supervision"],
            device=device,
        )
    if encoder is not None and encoder.hash != about["encoder_hash"]:
        raise ValueError(
            f"expected the encoder that this E-LDM was trained with, {about['encoder_name']} (hash "
            f"{about['encoder_hash']}), got one with hash {encoder.hash}"
        )
    return encoder
