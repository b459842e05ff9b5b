"""E-LDM: a diffusion model that paints an image from an encoder's embedding of it (Gen-SIS, arXiv 2412.01672)."""

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import AutoencoderConfig, ELDMConfig
from viewgen.eldm.generator import ELDMGenerator
from viewgen.eldm.latents import Latents, cache_latents
from viewgen.eldm.learner import denoising_loss
from viewgen.eldm.loop import OnStep
from viewgen.eldm.model import Condition, Denoiser, build_denoiser, load_model
from viewgen.eldm.presets import autoencoder_preset, preset
from viewgen.eldm.sample import initial_noise, make_sampler, sample
from viewgen.eldm.train import train_eldm
from viewgen.eldm.train_autoencoder import train_autoencoder

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "Condition",
    "Denoiser",
    "ELDMConfig",
    "ELDMGenerator",
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
