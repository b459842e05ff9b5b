"""Named configurations; modify one with ``dataclasses.replace``."""

from dataclasses import replace

from viewgen.eldm.config import AutoencoderConfig, ELDMConfig


def preset(name: str) -> ELDMConfig:
    """Return the configuration of a diffusion model.

    - "32-small": 32 px pixels on a laptop's CPU. On one core of an AMD EPYC with AVX-512 bf16: 175 images/s of training
      (219 s of that core in all), 27 guided views/s at 12 steps.
    - "32-narrow": "32-small" with fewer channels and steps, for few minutes and simple images; 33 to 40 guided
      views/s at 8 steps on a busy core. After 700 steps on 2,400 scenes 21.9% of 160 views keep their class.
    - "32-dit": a transformer on 16 tokens of 8 x 8 pixels, for few minutes and views that start from their image
      (``from_image``). On 2,400 scenes, 115 s of one busy core in training; 143 views/s unguided at 8 steps. At
      strengths 0.3, 0.4 and 0.5, 84%, 83% and 79% of 160 views keep their class; from noise alone, 13% of 300.
    - "32": 32 px pixels on one GPU. Not yet run.
    - "32-latent": a transformer on latents of 32 px images under a pretrained TAEF2 or other 8-fold TAESD (4 x 4
      tokens), on a laptop's CPU: 246 to 263 images of training per second on one core, compiled. After its 8,000 steps
      on 50,000 CIFAR-10 images, conditioned on embeddings of EfficientNet-Lite2 (labels of ImageNet), a ResNet-20 gives
      60.9% of the views of all images their source's class (guidance 3, 10 steps), and 86.0% of the images.
    - "64-small": latents of 64 px images on a laptop's CPU, under the autoencoder of the same name (4 x 16 x 16). A
      trial of the whole path: on 300 photographs it learned their colours (the mean lies 15 levels from the source's,
      72 from another image's) and coarse layout, no objects.
    - "256": latents of 256 px images under an 8-fold autoencoder (4 x 32 x 32); UNet and betas as RCG's
      (https://github.com/LTH14/rcg, config/ldm/cin-ldm-vq-f8-repcond.yaml). Not yet run.

    Raises:
        ValueError: if the name is unknown; the message lists the presets.
    """
    presets = {
        "32-small": _laptop_32,
        "32-narrow": _narrow_32,
        "32-dit": _tokens_32,
        "32": _gpu_32,
        "32-latent": _dit_32,
        "64-small": _latent_64,
        "256": _latent_256,
    }
    if name not in presets:
        raise ValueError(f"expected a preset of {', '.join(presets)}, got {name!r}; give one of them")
    return presets[name]()


def autoencoder_preset(name: str) -> AutoencoderConfig:
    """Return the configuration of an autoencoder, for the diffusion model of the same name.

    - "64-small": 64 px to 4 x 16 x 16 on a laptop's CPU, without a discriminator. On the 300 photographs it learned
      from, 24.0 dB; the best linear map of 4 x 4 pixels to four numbers has 22.4 dB there.
    - "256": 256 px to 4 x 32 x 32, the network of LDM's and Stable Diffusion's 8-fold autoencoder and LDM's
      discriminator (https://github.com/CompVis/latent-diffusion, configs/autoencoder/autoencoder_kl_32x32x4.yaml); in
      place of LPIPS, whose weights were trained with labels, a Laplacian pyramid. Not yet run.

    Raises:
        ValueError: if the name is unknown; the message lists the presets.
    """
    presets = {"64-small": _autoencoder_64, "256": _autoencoder_256}
    if name not in presets:
        raise ValueError(f"expected an autoencoder preset of {', '.join(presets)}, got {name!r}; give one of them")
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
        add_to_time_embedding=True,
        prediction="sample",
        beta_schedule="squaredcos_cap_v2",
        timestep_sampling="logit_normal",
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
        final_learning_rate=0.05,
        warmup_steps=50,
        beta2=0.99,
        ema_decay=0.995,
        bf16=True,
    )


def _narrow_32() -> ELDMConfig:
    return replace(_laptop_32(), channels=(96, 128), steps=800, learning_rate=1.5e-3)


def _tokens_32() -> ELDMConfig:
    return replace(
        _dit_32(),
        latents=False,
        patch=8,
        width=192,
        depth=6,
        heads=3,
        steps=600,
        batch_size=64,
        ema_decay=0.99,
    )


def _gpu_32() -> ELDMConfig:
    return ELDMConfig(
        resolution=32,
        channels=(128, 256, 256, 256),
        attention=(False, True, True, False),
        head_dim=64,
        cross_dim=256,
        add_to_time_embedding=True,
        prediction="v_prediction",
        beta_schedule="squaredcos_cap_v2",
        steps=100_000,
        batch_size=256,
        learning_rate=2e-4,
        warmup_steps=2000,
        ema_decay=0.9998,
        bf16=True,
    )


def _dit_32() -> ELDMConfig:
    return ELDMConfig(
        resolution=32,
        latents=True,
        network="dit",
        width=256,
        depth=8,
        heads=4,
        prediction="sample",
        beta_schedule="squaredcos_cap_v2",
        timestep_sampling="logit_normal",
        steps=8000,
        batch_size=128,
        learning_rate=1e-3,
        final_learning_rate=0.05,
        warmup_steps=100,
        beta2=0.99,
        ema_decay=0.999,
        bf16=True,
    )


def _latent_64() -> ELDMConfig:
    return replace(
        _laptop_32(), resolution=64, latents=True, patch=2, prediction="v_prediction", timestep_sampling="uniform"
    )


def _latent_256() -> ELDMConfig:
    return ELDMConfig(
        resolution=256,
        latents=True,
        channels=(256, 512, 1024),
        attention=(True, True, True),
        cross_dim=512,
        steps=400_000,
        batch_size=256,
        learning_rate=1e-4,
        bf16=True,
    )


def _autoencoder_64() -> AutoencoderConfig:
    return AutoencoderConfig(
        resolution=64,
        channels=(16, 32, 64),
        layers_per_block=1,
        norm_groups=8,
        steps=2000,
        batch_size=8,
        learning_rate=2e-3,
        final_learning_rate=0.05,
        warmup_steps=50,
        weight_decay=0.0,
        beta2=0.99,
        ema_decay=0.99,
        bf16=True,
    )


def _autoencoder_256() -> AutoencoderConfig:
    return AutoencoderConfig(
        resolution=256,
        channels=(128, 256, 512, 512),
        adversarial_weight=0.5,
        adversarial_start=50_000,
        steps=200_000,
        batch_size=64,
        learning_rate=1e-4,
        warmup_steps=2000,
        weight_decay=0.0,
        beta1=0.5,
        beta2=0.9,
        ema_decay=0.999,
        bf16=True,
    )
