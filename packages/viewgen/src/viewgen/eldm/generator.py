"""The trained E-LDM as a generator of views (Gen-SIS, https://arxiv.org/abs/2412.01672).

Shapes: B images of a batch, H, W their sides in pixels, D the embedding's length.
"""

import os
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from viewgen.eldm.model import folder_hash, load_model
from viewgen.eldm.sample import Sampler, initial_noise, make_sampler, sample
from viewgen.encoder import ImageEncoder, load_encoder

Precision = Literal["float32", "bfloat16", "float16"]


class ELDMGenerator:
    """Views from embeddings: the source's own, or one between two images.

    Args:
        folder: what ``train_eldm`` wrote.
        encoder: the encoder it was trained with, as ``load_encoder`` names it; needed for images without embeddings.
        steps: network evaluations per view.
        guidance: of the condition; 1 is none.
        sampler: "dpm" or "ddim".
        device: where it runs, for example "cuda:0".
        dtype: of the UNet; noise, guidance and sampler stay in float32. "bfloat16" is the decoder's too.
        compile: compile the UNet; the first batch takes a minute or more.

    Raises:
        ValueError: if the folder holds no finished model, or was trained on another encoder's embeddings.
    """

    name = "eldm"
    licence = "as the training images"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        encoder: str | ImageEncoder | nn.Module | None = None,
        *,
        steps: int = 12,
        guidance: float = 2.0,
        sampler: Sampler = "dpm",
        device: str | torch.device = "cpu",
        dtype: Precision | torch.dtype = "float32",
        compile: bool = False,
    ) -> None:
        precision: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        model = load_model(folder, precision)
        self.device = torch.device(device)
        self.denoiser = model.denoiser.to(self.device).to(memory_format=torch.channels_last)
        if compile:
            self.denoiser.unet.compile()
        self.noise_process, self.autoencoder = model.noise_process, model.autoencoder.to(self.device)
        self.autoencoder.bf16 = precision is torch.bfloat16
        self.steps, self.guidance = steps, guidance
        self.sampler: Sampler = sampler
        self.resolution, about = model.resolution, model.encoder
        self.encoder_hash: str = about["encoder_hash"]
        self.supervision = about["supervision"]
        self.model_hash = folder_hash(folder)
        self.model_id = f"eldm-{self.resolution}px"
        self.input_size: int = about["encoder_size"]
        self.settings = {"steps": steps, "guidance": guidance, "sampler": sampler, "dtype": str(precision)}
        self.encoder = _checked(encoder, about, self.device)
        make_sampler(self.noise_process, sampler)

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """The images' embeddings.

        Raises:
            ValueError: if the generator was made without an encoder.
        """
        if self.encoder is None:
            raise ValueError("this E-LDM has no encoder: give ELDMGenerator(..., encoder=...), or pass embeddings")
        return self.encoder(images)

    def generate(
        self, condition: Float[Tensor, "B D"], *, seeds: Sequence[int], strength: Tensor | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """One image per embedding, at the resolution of training.

        Raises:
            ValueError: if a strength is given (an embedding is all this generator knows of the source), or if the
                embeddings have another length than those of training.
        """
        if strength is not None:
            raise ValueError("E-LDM starts from noise and takes no strength: leave it None")
        dim = len(self.denoiser.condition.mean)
        if condition.shape[1] != dim:
            raise ValueError(f"this E-LDM was trained on embeddings of length {dim}, not {condition.shape[1]}")
        noise = initial_noise(seeds, self.autoencoder.latent_shape(self.resolution)).to(self.device)
        scheduler = make_sampler(self.noise_process, self.sampler)
        standardised = self.denoiser.condition.standardise(condition.to(self.device))
        options = {"steps": self.steps, "guidance": self.guidance, "clip": self.autoencoder.module is None}
        latents = sample(self.denoiser, scheduler, standardised, noise, **options)
        return self.autoencoder.decode(latents).cpu()


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
            name=about["encoder_name"],
            supervision=about["supervision"],
            device=device,
        )
    if encoder is not None and encoder.hash != about["encoder_hash"]:
        raise ValueError(
            f"this E-LDM was trained on embeddings of {about['encoder_name']} (hash {about['encoder_hash']}), "
            f"but the encoder given has hash {encoder.hash}: give that encoder"
        )
    return encoder
