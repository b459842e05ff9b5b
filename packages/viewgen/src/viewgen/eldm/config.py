"""Everything that shapes and trains an embedding-conditioned diffusion model."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ELDMConfig:
    """A UNet over pixels or latents, its noise process, and its training.

    Attributes:
        resolution: side in pixels of the square images it learns from and makes.
        patch: side of the pixel blocks folded into channels before the UNet (1 for latents).
        channels: of each UNet level, from fine to coarse.
        attention: whether each level attends (to itself and to the condition).
        layers_per_block: residual blocks per level.
        head_dim: channels of one attention head.
        cross_dim: length of the condition token.
        norm_groups: groups of the group normalisation.
        in_time: also add a projection of the embedding to the time embedding, so that every residual block sees it.
        prediction: what the network predicts: the noise, the velocity, or the clean image itself.
        beta_schedule: diffusers' name of the noise schedule.
        beta_start: first beta; "squaredcos_cap_v2" has no use for it.
        beta_end: last beta; "squaredcos_cap_v2" has no use for it.
        timesteps: length of the noise process.
        timestep_law: how training draws from it: "uniform", or "logit_normal" to favour its middle.
        condition_dropout: probability that an image is learned without its condition.
        flip: mirror half of the images.
        steps: optimizer steps.
        batch_size: images per step, over all processes together.
        learning_rate: of AdamW, after warm-up.
        final_learning_rate: share of it at the end of a half cosine; 1 keeps it constant.
        warmup_steps: linear warm-up.
        weight_decay: of AdamW.
        beta2: of AdamW.
        grad_clip: largest norm of the gradient.
        ema_decay: of the averaged weights; early steps use (1 + step) / (10 + step) where that is less.
        bf16: bfloat16 autocast in training.
        channels_last: memory layout of convolutions.
        seed: of initial weights and every draw.
    """

    resolution: int
    patch: int = 1
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    layers_per_block: int = 2
    head_dim: int = 32
    cross_dim: int = 512
    norm_groups: int = 32
    in_time: bool = False
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    timesteps: int = 1000
    timestep_law: Literal["uniform", "logit_normal"] = "uniform"
    condition_dropout: float = 0.1
    flip: bool = True
    steps: int
    batch_size: int
    learning_rate: float = 1e-4
    final_learning_rate: float = 1.0
    warmup_steps: int = 1000
    weight_decay: float = 0.01
    beta2: float = 0.999
    grad_clip: float = 1.0
    ema_decay: float = 0.9999
    bf16: bool = False
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.attention):
            raise ValueError(f"channels has {len(self.channels)} levels, attention {len(self.attention)}: give as many")
        if any(width % self.norm_groups or width % self.head_dim for width in self.channels):
            raise ValueError(
                f"channels {self.channels} must be multiples of norm_groups {self.norm_groups} "
                f"and of head_dim {self.head_dim}"
            )
        if self.resolution % self.patch:
            raise ValueError(f"resolution {self.resolution} must be a multiple of patch {self.patch}")


def preset(name: str) -> ELDMConfig:
    """A configuration by name; change one with ``dataclasses.replace``.

    - "32-small": 32 px pixels on a laptop's CPU. On one core of an AMD EPYC with AVX-512 bf16: 175 images/s of training
      (219 s of that core in all), 27 guided views/s at 12 steps.
    - "32": 32 px pixels on one GPU. Not yet run.
    - "256": latents of a 256 px image under an 8-fold autoencoder (32 x 32); UNet and betas as RCG's
      (https://github.com/LTH14/rcg, config/ldm/cin-ldm-vq-f8-repcond.yaml). Not yet run.

    Raises:
        ValueError: naming the presets, if there is none of that name.
    """
    presets = {"32-small": _laptop_32, "32": _gpu_32, "256": _latent_256}
    if name not in presets:
        raise ValueError(f"there is no preset {name!r}; there is: {', '.join(presets)}")
    return presets[name]()


def _laptop_32() -> ELDMConfig:
    return ELDMConfig(
        resolution=32,
        patch=4,
        channels=(128, 128),
        attention=(False, True),
        layers_per_block=1,
        cross_dim=128,
        norm_groups=16,
        in_time=True,
        prediction="sample",
        beta_schedule="squaredcos_cap_v2",
        timestep_law="logit_normal",
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
        final_learning_rate=0.05,
        warmup_steps=50,
        beta2=0.99,
        ema_decay=0.995,
        bf16=True,
    )


def _gpu_32() -> ELDMConfig:
    return ELDMConfig(
        resolution=32,
        channels=(128, 256, 256, 256),
        attention=(False, True, True, False),
        head_dim=64,
        cross_dim=256,
        in_time=True,
        prediction="v_prediction",
        beta_schedule="squaredcos_cap_v2",
        steps=100_000,
        batch_size=256,
        learning_rate=2e-4,
        warmup_steps=2000,
        ema_decay=0.9998,
        bf16=True,
    )


def _latent_256() -> ELDMConfig:
    return ELDMConfig(
        resolution=256,
        channels=(256, 512, 1024),
        attention=(True, True, True),
        cross_dim=512,
        steps=400_000,
        batch_size=256,
        learning_rate=1e-4,
        bf16=True,
    )
