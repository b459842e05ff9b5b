"""The files of a Stable unCLIP model, component by component, in the layout of diffusers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from viewgen.diffusion.schedulers import load_scheduler
from viewgen.pretrained import load_part

PARTS = (
    "feature_extractor",
    "image_encoder",
    "image_noising_scheduler",
    "image_normalizer",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "unet",
    "vae",
)
WHERE = (
    "give model= the folder or the hub id of a Stable unCLIP image variation model; the original, "
    "stabilityai/stable-diffusion-2-1-unclip, was withdrawn from the hub in November 2025, "
    "and copies stand under other names, for example radames/stable-diffusion-2-1-unclip-img2img"
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The components of a Stable unCLIP image variation model, under their folders' names.

    Attributes:
        feature_extractor: CLIPImageProcessor.
        image_encoder: CLIPVisionModelWithProjection.
        image_noising_scheduler: the noise schedule of the embeddings.
        image_normalizer: StableUnCLIPImageNormalizer, CLIP's mean and standard deviation.
        scheduler: scheduler of the latents.
        text_encoder: CLIPTextModel.
        tokenizer: CLIPTokenizer.
        unet: UNet2DConditionModel.
        vae: AutoencoderKL.
    """

    feature_extractor: Any
    image_encoder: Any
    image_noising_scheduler: Any
    image_normalizer: Any
    scheduler: Any
    text_encoder: Any
    tokenizer: Any
    unet: Any
    vae: Any


def load_checkpoint(folder: Path, *, dtype: str, variant: str | None = None) -> Checkpoint:
    """Read every component, the normalizer in float32.

    Raises:
        ValueError: naming what is missing or does not fit.
    """
    lacking = [part for part in PARTS if not (folder / part).is_dir()]
    if lacking:
        raise ValueError(
            f"expected a Stable unCLIP image variation model, got {folder}, which lacks {', '.join(lacking)}; {WHERE}"
        )
    networks = {
        "image_encoder": CLIPVisionModelWithProjection,
        "image_normalizer": StableUnCLIPImageNormalizer,
        "text_encoder": CLIPTextModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    loaded: dict[str, Any] = {}
    for part, kind in networks.items():
        precision = "float32" if part == "image_normalizer" else dtype
        loaded[part] = load_part(kind, folder / part, dtype=precision, variant=variant)
    return Checkpoint(
        **loaded,
        feature_extractor=CLIPImageProcessor.from_pretrained(folder / "feature_extractor", local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        image_noising_scheduler=load_scheduler(folder / "image_noising_scheduler"),
        scheduler=load_scheduler(folder / "scheduler"),
    )
