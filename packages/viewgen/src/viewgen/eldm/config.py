"""Configurations of a diffusion model or its autoencoder, and of their training."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of every training of E-LDM.

    Attributes:
        resolution: side in pixels of the square images in training and generation.
        flip: mirror half of the images.
        steps: optimizer steps.
        batch_size: images per step, over all processes together.
        learning_rate: learning rate of AdamW after warm-up.
        final_learning_rate: final fraction of the learning rate after cosine decay; 1 keeps it constant.
        warmup_steps: linear warm-up.
        weight_decay: weight decay of AdamW.
        beta1: first beta of AdamW.
        beta2: second beta of AdamW.
        grad_clip: maximum norm of the gradient.
        ema_decay: decay of the averaged weights; early steps use (1 + step) / (10 + step) if that is less.
        bf16: bfloat16 autocast in training.
        channels_last: memory layout of convolutions.
        seed: seed of the initial weights and of all random numbers.
    """

    resolution: int
    flip: bool = True
    steps: int
    batch_size: int
    learning_rate: float = 1e-4
    final_learning_rate: float = 1.0
    warmup_steps: int = 1000
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    grad_clip: float = 1.0
    ema_decay: float = 0.9999
    bf16: bool = False
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of 1 or more, got {getattr(self, name)}; give more")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(
                f"expected a learning rate above 0, got {self.learning_rate}; leave it out for the preset's"
            )


@dataclass(frozen=True, kw_only=True)
class ELDMConfig(TrainingConfig):
    """A network over pixels or latents, its noise process, and its training.

    Attributes:
        latents: whether it denoises an autoencoder's latents rather than pixels.
        patch: side of the blocks folded into channels before the network.
        network: "unet", diffusers' UNet, or "dit", a diffusion transformer.
        channels: channels of each level of the UNet, from fine to coarse.
        attention: whether each level of the UNet has self-attention and cross-attention to the condition.
        layers_per_block: residual blocks per level of the UNet.
        head_dim: channels of one attention head of the UNet.
        cross_dim: width of the UNet's condition token.
        norm_groups: groups of the UNet's group normalization.
        add_to_time_embedding: whether a projection of the embedding is also added to the UNet's time embedding, which
            every residual block takes.
        width: width of the transformer's tokens.
        depth: blocks of the transformer.
        heads: attention heads of the transformer.
        prediction: target of the network: the noise, the velocity, or the clean image.
        beta_schedule: diffusers' name of the noise schedule.
        beta_start: first beta; not used by "squaredcos_cap_v2".
        beta_end: last beta; not used by "squaredcos_cap_v2".
        timesteps: length of the noise process.
        timestep_sampling: distribution of timesteps in training: "uniform", or "logit_normal", which favors the middle.
        condition_dropout: probability of training an image without its condition.
    """

    latents: bool = False
    patch: int = 1
    network: Literal["unet", "dit"] = "unet"
    channels: tuple[int, ...] = ()
    attention: tuple[bool, ...] = ()
    layers_per_block: int = 2
    head_dim: int = 32
    cross_dim: int = 512
    norm_groups: int = 32
    add_to_time_embedding: bool = False
    width: int = 256
    depth: int = 8
    heads: int = 4
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    beta_start: float = 0.0015
    beta_end: float = 0.0195
    timesteps: int = 1000
    timestep_sampling: Literal["uniform", "logit_normal"] = "uniform"
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resolution % self.patch:
            raise ValueError(f"expected a resolution that is a multiple of patch {self.patch}, got {self.resolution}")
        if self.network == "dit":
            if self.width % (4 * self.heads):
                raise ValueError(f"expected a width that is a multiple of 4 x {self.heads} heads, got {self.width}")
            return
        if not self.channels or len(self.channels) != len(self.attention):
            raise ValueError(
                f"expected channels and attention of the same, non-zero length, got {len(self.channels)} and "
                f"{len(self.attention)}"
            )
        if any(width % self.norm_groups or width % self.head_dim for width in self.channels):
            raise ValueError(
                f"expected channels in multiples of norm_groups {self.norm_groups} and of head_dim {self.head_dim}, "
                f"got {self.channels}"
            )

    @property
    def cond_dim(self) -> int:
        """Width of the embedding's projection, which the network takes."""
        return self.width if self.network == "dit" else self.cross_dim


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(TrainingConfig):
    """A diffusers ``AutoencoderKL``, its losses, and its training.

    Attributes:
        channels: channels of each level, from fine to coarse; n levels shrink an image 2^(n - 1)-fold.
        layers_per_block: residual blocks per level.
        latent_channels: channels of the latents.
        norm_groups: groups of the group normalization.
        l2_weight: weight of the squared error, in addition to the absolute error.
        pyramid_weight: weight of the absolute error of the Laplacian pyramid, for edges and texture.
        kl_weight: weight of the KL divergence from a standard normal; as in LDM, divergence and error are sums over
            an image.
        initial_log_variance: log-variance of the latents before training. A large one hides the signal from the
            decoder: after 300 steps on 16 px images the error was 24 levels with 0, the usual value, and 11 with -6.
        adversarial_weight: weight of the adversarial loss, its gradient scaled to that of the error; 0 disables it.
        adversarial_start: first step with the discriminator.
        discriminator_channels: channels of its first layer.
        discriminator_layers: number of strided layers.
    """

    channels: tuple[int, ...]
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    l2_weight: float = 0.0
    pyramid_weight: float = 1.0
    kl_weight: float = 1e-6
    initial_log_variance: float = -6.0
    adversarial_weight: float = 0.0
    adversarial_start: int = 0
    discriminator_channels: int = 64
    discriminator_layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(width % self.norm_groups for width in self.channels):
            raise ValueError(f"expected channels in multiples of norm_groups {self.norm_groups}, got {self.channels}")
        if self.resolution % self.shrink:
            raise ValueError(
                f"expected a resolution that is a multiple of {self.shrink}, the downsampling factor of "
                f"{len(self.channels)} levels, got {self.resolution}"
            )

    @property
    def shrink(self) -> int:
        """Sides of images per side of latents."""
        return 2 ** (len(self.channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of an image's latents."""
        side = self.resolution // self.shrink
        return self.latent_channels, side, side
