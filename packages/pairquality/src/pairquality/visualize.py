"""A picture to judge a foreground PCA by: images, their maps laid over them, and what counts as foreground.

Shapes: s pixels, the side of a tile; rows x columns tokens.
"""

import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from genviews_core.files import atomic_write
from genviews_core.listing import iter_images
from pairquality.encoder import FeatureEncoder
from pairquality.foreground import ForegroundPCA, foreground_maps, foreground_ratio
from pairquality.images import choose_keys, read_batches

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
RAMP = torch.tensor([[0.13, 0.25, 0.65], [0.95, 0.95, 0.92], [0.80, 0.15, 0.12]])
"""Blue background, pale between, red foreground."""
OPACITY, GAP, INK, PAPER = 0.6, 8, "#1a1a1a", "#ffffff"


def foreground_sheet(
    images_root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoder: FeatureEncoder,
    pca: ForegroundPCA,
    *,
    count: int = 12,
    seed: int = 0,
    tile: int = 192,
) -> Path:
    """Draws some images: each as it is, under its map (blue to red), and with its background mask_background out.

    Args:
        images_root: the images.
        out: a .png or .jpg file.
        encoder: makes the tokens.
        pca: fitted on that encoder.
        count: images shown.
        seed: of their choice.
        tile: side in pixels of a picture.

    Raises:
        ValueError: the PCA is another encoder's, no image can be read, or `out` is no picture's name.
    """
    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"The picture must be a .png or .jpg file, not {out}.")
    pca.validate_encoder(encoder)
    keys = choose_keys(iter_images(images_root), count, seed)
    (batch,) = read_batches(images_root, keys, max(encoder.size, tile), batch_size=max(len(keys), 1), workers=1) or [[]]
    read = [(key, image) for key, image in batch if isinstance(image, Tensor)]
    if not read:
        raise ValueError(f"No image under {os.fspath(images_root)} can be read.")
    sheet = _sheet(read, encoder, pca, tile)
    atomic_write(out, lambda temporary: sheet.save(temporary, FORMATS[out.suffix.lower()]))
    return out


def _sheet(read: list[tuple[str, Tensor]], encoder: FeatureEncoder, pca: ForegroundPCA, tile: int) -> Image.Image:
    images = torch.stack([image for _, image in read])
    tokens = encoder(images.to(encoder.mean.device))
    maps, ratios = foreground_maps(pca, tokens).cpu(), foreground_ratio(pca, tokens).tolist()
    masks = (pca.project(tokens) > pca.threshold).cpu().float()
    font, line = ImageFont.load_default(14), 20
    across = min(2, len(read))
    down = -(-len(read) // across)
    wide, tall = 3 * tile + 2 * GAP, tile + line + GAP
    sheet = Image.new("RGB", (across * (wide + 2 * GAP), down * tall + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    shown = interpolate(images.float() / 255, (tile, tile), mode="bicubic", antialias=True).clamp(0, 1)
    for place, (key, _) in enumerate(read):
        left, top = GAP + place % across * (wide + 2 * GAP), GAP + place // across * tall
        soft = _enlarged(maps[place], encoder.grid, tile, "bilinear")
        hard = _enlarged(masks[place], encoder.grid, tile, "nearest")
        for column, picture in enumerate(
            (shown[place], heatmap_overlay(shown[place], soft), mask_background(shown[place], hard))
        ):
            sheet.paste(_to_pil(picture), (left + column * (tile + GAP), top))
        text = "".join(letter if letter.isprintable() else "?" for letter in key)
        pen.text((left, top + tile + 2), f"{ratios[place]:.2f}  {text[-60:]}", INK, font)
    return sheet


def heatmap_overlay(image: Float[Tensor, "3 s s"], soft: Float[Tensor, "s s"]) -> Float[Tensor, "3 s s"]:
    """An image under its map's colors."""
    place = soft.clamp(0, 1) * (len(RAMP) - 1)
    low = place.long().clamp(max=len(RAMP) - 2)
    share = (place - low)[..., None]
    colors = (RAMP[low] * (1 - share) + RAMP[low + 1] * share).permute(2, 0, 1)
    return (1 - OPACITY) * image + OPACITY * colors


def mask_background(image: Float[Tensor, "3 s s"], mask: Float[Tensor, "s s"]) -> Float[Tensor, "3 s s"]:
    """An image whose background is pale gray."""
    gray = 0.7 + 0.2 * image.mean(dim=0, keepdim=True)
    return mask * image + (1 - mask) * gray


def _enlarged(tokens: Float[Tensor, " l"], grid: tuple[int, int], tile: int, mode: str) -> Float[Tensor, "s s"]:
    return interpolate(tokens.view(1, 1, *grid), (tile, tile), mode=mode)[0, 0]


def _to_pil(image: Float[Tensor, "3 s s"]) -> Image.Image:
    levels: UInt8[Tensor, "s s 3"] = (image * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(levels.numpy()))
