from .autoencoder import Autoencoder
from .autoencoder_trainer import train_autoencoder
from .config import AutoencoderConfig, ELDMConfig
from .diffusion_trainer import denoising_loss, train_eldm
from .dit import EmbeddingDiT
from .generator import ELDMGenerator
from .latents import Latents, cache_latents
from .model import Condition, Denoiser, build_denoiser, load_model
from .presets import autoencoder_preset, preset
from .sampling import initial_noise, make_sampler, sample
from .taesd import TAEF2
from .training import OnStep

__all__ = [
    "TAEF2",
    "Autoencoder",
    "AutoencoderConfig",
    "Condition",
    "Denoiser",
    "ELDMConfig",
    "ELDMGenerator",
    "EmbeddingDiT",
    "Latents",
    "OnStep",
    "autoencoder_preset",
    "build_denoiser",
    "cache_latents",
    "denoising_loss",
    "initial_noise",
    "load_model",
    "make_sampler",
    "preset",
    "sample",
    "train_autoencoder",
    "train_eldm",
]
