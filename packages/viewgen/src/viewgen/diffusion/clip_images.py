"""CLIP's vision tower as a pipeline's folders hold it: preprocessing in threads, embeddings or tokens on the device.

Shapes: B images of H x W pixels, S CLIP's input size, D the embedding size, T the tokens of an image.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from genviews_core.backbones import first_line
from viewgen.encoder import ImageEncoder
from viewgen.pretrained import load_part


class ClipImages:
    """Embeds images as diffusers' pipelines do.

    Args:
        processor: CLIPImageProcessor, the preprocessing.
        tower: CLIPVisionModelWithProjection.
        name: name of the encoder, for manifests and caches.
        device: device to run on.
        output: "embedding", one projected vector per image, or "tokens", the last hidden states but one.

    Attributes:
        dim: D.
        shape: shape of one image's embedding, (D,), or of its tokens, (T, D).
    """

    def __init__(
        self,
        processor: Any,
        tower: Any,
        *,
        name: str,
        device: torch.device,
        output: Literal["embedding", "tokens"] = "embedding",
    ) -> None:
        self.processor, self.output, self.device = processor, output, device
        config = tower.config
        self.dim: int = config.projection_dim if output == "embedding" else config.hidden_size
        tokens = (config.image_size // config.patch_size) ** 2 + 1
        self.shape: tuple[int, ...] = (self.dim,) if output == "embedding" else (tokens, self.dim)
        self.encoder = ImageEncoder(
            _Tower(tower, output),
            size=config.image_size,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            name=name,
            supervision="captions",
            device=device,
        )

    def prepare(self, image: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 S S"]:
        """Resize and center-crop an image to CLIP's input size."""
        return self._processed([image], do_rescale=False, do_normalize=False)[0]

    @torch.no_grad()
    def encode(self, prepared: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B *T D"]:
        """Normalize and embed prepared images."""
        pixels = self._processed(list(prepared), do_resize=False, do_center_crop=False)
        return self.encode_pixels(pixels)

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B *T D"]:
        """Embed images of any size."""
        return self.encode(torch.stack([self.prepare(image) for image in images]))

    @torch.no_grad()
    def unconditional(self) -> Float[Tensor, "1 *T D"]:
        """Return what the pipelines take for no image: a zero embedding, or the tokens of zero pixels."""
        size = self.encoder.size
        if self.output == "embedding":
            return torch.zeros(1, self.dim)
        return self.encode_pixels(torch.zeros(1, 3, size, size))

    @torch.no_grad()
    def encode_pixels(self, pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B *T D"]:
        """Embed pixels that are already normalized."""
        return self.encoder.module(pixels.to(self.device)).cpu()

    def _processed(self, images: list[Tensor], **left_out: bool) -> Tensor:
        options: dict[str, Any] = {"return_tensors": "pt", "input_data_format": "channels_first", **left_out}
        return self.processor(images=images, **options)["pixel_values"]


class _Tower(nn.Module):
    """CLIP's vision tower, images to their projected embeddings or to tokens."""

    def __init__(self, tower: Any, output: str) -> None:
        super().__init__()
        self.tower, self.output = tower, output

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B *T D"]:
        pixels = pixels.to(self.tower.dtype)
        if self.output == "embedding":
            return self.tower(pixels).image_embeds.float()
        return self.tower(pixels, output_hidden_states=True).hidden_states[-2].float()


def load_clip_images(
    encoder: Path,
    processor: Path | None,
    *,
    dtype: str,
    device: torch.device,
    variant: str | None = None,
    **options: Any,
) -> ClipImages:
    """Load a vision tower and its preprocessing; without ``processor`` CLIP's own at the tower's size.

    Raises:
        ValueError: naming what is missing or does not fit.
    """
    tower = load_part(CLIPVisionModelWithProjection, encoder, dtype=dtype, variant=variant)
    if processor is None:
        size = tower.config.image_size
        loaded = CLIPImageProcessor(size=size, crop_size=size)
    else:
        try:
            loaded = CLIPImageProcessor.from_pretrained(processor, local_files_only=True)
        except Exception as error:  # missing or broken files raise many unrelated types
            raise ValueError(f"cannot read the image processor in {processor} ({first_line(error)})") from error
    return ClipImages(loaded, tower, device=device, **options)
