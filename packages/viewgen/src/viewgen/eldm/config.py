"""Everything that shapes and trains a diffusion model, or the autoencoder under it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training here has.

    Attributes:
        resolution: side in pixels of the square images it learns from and makes.
        flip: mirror half of the images.
        steps: optimizer steps.
        batch_size: images per step, over all processes together.
        learning_rate: of AdamW, after warm-up.
        final_learning_rate: share of it at the end of a half cosine; 1 keeps it constant.
        warmup_steps: linear warm-up.
        weight_decay: of AdamW.
        beta1: of AdamW.
        beta2: of AdamW.
        grad_clip: largest norm of the gradient.
        ema_decay: of the averaged weights; early steps use (1 + step) / (10 + step) where that is less.
        bf16: bfloat16 autocast in training.
        channels_last: memory layout of convolutions.
        seed: of initial weights and every draw.
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
        channels: of each level of the UNet, from fine to coarse.
        attention: of the UNet: whether each level attends (to itself and to the condition).
        layers_per_block: of the UNet: residual blocks per level.
        head_dim: of the UNet: channels of one attention head.
        cross_dim: of the UNet: length of the condition token.
        norm_groups: of the UNet: groups of the group normalisation.
        add_to_time_embedding: of the UNet: also add a projection of the embedding to the time embedding, so that
            every residual block sees it.
        width: of the transformer: length of a token.
        depth: of the transformer: blocks.
        heads: of the transformer's attention.
        prediction: what the network predicts: the noise, the velocity, or the clean image itself.
        beta_schedule: diffusers' name of the noise schedule.
        beta_start: first beta; "squaredcos_cap_v2" has no use for it.
        beta_end: last beta; "squaredcos_cap_v2" has no use for it.
        timesteps: length of the noise process.
        timestep_sampling: how training draws from it: "uniform", or "logit_normal" to favour its middle.
        condition_dropout: probability that an image is learned without its condition.
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
            raise ValueError(f"resolution {self.resolution} must be a multiple of patch {self.patch}")
        if self.network == "dit":
            if self.width % (4 * self.heads):
                raise ValueError(f"expected a width that is a multiple of 4 x {self.heads} heads, got {self.width}")
            return
        if not self.channels or len(self.channels) != len(self.attention):
            raise ValueError(f"channels has {len(self.channels)} levels, attention {len(self.attention)}: give as many")
        if any(width % self.norm_groups or width % self.head_dim for width in self.channels):
            raise ValueError(
                f"channels {self.channels} must be multiples of norm_groups {self.norm_groups} "
                f"and of head_dim {self.head_dim}"
            )

    @property
    def cond_dim(self) -> int:
        """Length of what the network sees of an embedding."""
        return self.width if self.network == "dit" else self.cross_dim


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(TrainingConfig):
    """A diffusers ``AutoencoderKL``, what it is trained to, and its training.

    Attributes:
        channels: of each level, from fine to coarse; n levels shrink an image 2^(n - 1)-fold.
        layers_per_block: residual blocks per level.
        latent_channels: of the latents.
        norm_groups: groups of the group normalisation.
        l2_weight: of the squared error, beside the absolute error.
        pyramid_weight: of the absolute error of the Laplacian pyramid, which asks for edges and texture.
        kl_weight: of the divergence from a standard normal, as in LDM, where both it and the error are sums over an
            image.
        initial_log_variance: of the latents before training. A wide distribution drowns what the decoder could learn
            from: after 300 steps on 16 px images the error was 24 levels from 0, where networks begin, 11 from -6.
        adversarial_weight: of the discriminator's term, after its gradient is scaled to the error's; 0 trains without.
        adversarial_start: step at which the discriminator begins.
        discriminator_channels: of its first layer.
        discriminator_layers: strided layers of it.
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
            raise ValueError(f"channels {self.channels} must be multiples of norm_groups {self.norm_groups}")
        if self.resolution % self.shrink:
            raise ValueError(
                f"resolution {self.resolution} must be a multiple of {self.shrink}, to which {len(self.channels)} "
                "levels of channels shrink a pixel"
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
