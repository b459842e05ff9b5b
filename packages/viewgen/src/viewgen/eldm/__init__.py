"""E-LDM: a diffusion model that paints an image from an encoder's embedding of it (Gen-SIS, arXiv 2412.01672)."""

from viewgen.eldm.autoencoder import Autoencoder
from viewgen.eldm.config import ELDMConfig, preset
from viewgen.eldm.generator import ELDMGenerator
from viewgen.eldm.learner import denoising_loss
from viewgen.eldm.model import Condition, Denoiser, build_denoiser, load_model
from viewgen.eldm.sample import initial_noise, make_sampler, sample
from viewgen.eldm.train import train_eldm

__all__ = [
    "Autoencoder",
    "Condition",
    "Denoiser",
    "ELDMConfig",
    "ELDMGenerator",
    "build_denoiser",
    "denoising_loss",
    "initial_noise",
    "load_model",
    "make_sampler",
    "preset",
    "sample",
    "train_eldm",
]
