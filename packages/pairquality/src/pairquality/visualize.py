"""Draw images, their foreground maps and their foreground, to judge a PCA by eye.

Shapes: s pixels, the size of a tile; rows x columns tokens.
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
"""Colors of maps: blue background, pale in between, red foreground."""
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
    """Draw some images: each as it is, overlaid by its map (blue to red), and with its background grayed out.

    Args:
        images_root: folder of images.
        out: .png or .jpg file to write.
        encoder: encoder of the images.
        pca: PCA fitted on that encoder.
        count: number of images shown.
        seed: seed of their choice.
        tile: size of each image on the sheet in pixels.

    Raises:
        ValueError: the PCA belongs to another encoder, no image can be read, or `out` has another suffix.
    """
    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"expected a .png or .jpg file to write, got {out}; choose another name")
    pca.validate_encoder(encoder)
    keys = choose_keys(iter_images(images_root), count, seed)
    (batch,) = read_batches(images_root, keys, max(encoder.size, tile), batch_size=max(len(keys), 1), workers=1) or [[]]
    read = [(key, image) for key, image in batch if isinstance(image, Tensor)]
    if not read:
        raise ValueError(f"expected readable images under {os.fspath(images_root)}, found none; give another folder")
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
    """Return an image overlaid by the colors of its map."""
    place = soft.clamp(0, 1) * (len(RAMP) - 1)
    low = place.long().clamp(max=len(RAMP) - 2)
    fraction = (place - low)[..., None]
    colors = (RAMP[low] * (1 - fraction) + RAMP[low + 1] * fraction).permute(2, 0, 1)
    return (1 - OPACITY) * image + OPACITY * colors


def mask_background(image: Float[Tensor, "3 s s"], mask: Float[Tensor, "s s"]) -> Float[Tensor, "3 s s"]:
    """Return an image with its background in pale gray."""
    gray = 0.7 + 0.2 * image.mean(dim=0, keepdim=True)
    return mask * image + (1 - mask) * gray


def _enlarged(tokens: Float[Tensor, " l"], grid: tuple[int, int], tile: int, mode: str) -> Float[Tensor, "s s"]:
    return interpolate(tokens.view(1, 1, *grid), (tile, tile), mode=mode)[0, 0]


def _to_pil(image: Float[Tensor, "3 s s"]) -> Image.Image:
    levels: UInt8[Tensor, "s s 3"] = (image * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(levels.numpy()))
