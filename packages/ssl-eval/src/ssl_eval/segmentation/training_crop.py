"""One image with its mask as a segmentation head is trained on it: scaled, cropped, flipped, distorted.

As mmsegmentation's pipeline does (open-mmlab/mmsegmentation@0066ce8 mmseg/datasets/pipelines/transforms.py), but for
PIL's antialiased resizing, and without a limit of the long side, which binds where it is four times the short one.

Shapes: side the crop's side, h x w pixels.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ssl_eval.segmentation.mean_iou import LEFT_OUT
from ssl_eval.segmentation.training import SegmentationProtocol

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of the channels, of values in [0, 1]."""

TRIES = 10
"""Crops that are drawn until no class has too large a share."""

BRIGHTNESS, FACTOR, HUE = 32.0, (0.5, 1.5), 18 / 180
"""Largest shift of the values; smallest and largest factor of contrast and saturation; largest turn of the hue."""


def training_crop(
    image: Image.Image,
    mask: np.ndarray,
    protocol: SegmentationProtocol,
    normalisation: Normalisation,
    draw: np.random.Generator,
) -> tuple[Float[Tensor, "3 side side"], UInt8[Tensor, "side side"]]:
    """One image, scaled, cropped, flipped, distorted and filled up: the image with mean values, the mask with 255."""
    size = scaled(image.size, round(protocol.short * draw.uniform(*protocol.scales)))
    pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    classes = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    for _ in range(TRIES + 1):
        top, left = (int(draw.integers(max(side - protocol.crop, 0) + 1)) for side in classes.shape)
        part = np.s_[top : top + protocol.crop, left : left + protocol.crop]
        if protocol.max_share >= 1 or _is_varied(classes[part], protocol.max_share):
            break
    pixels, classes = pixels[part], classes[part]
    if draw.random() < 0.5:
        pixels, classes = pixels[:, ::-1], classes[:, ::-1]
    if protocol.distort:
        pixels = distorted(pixels, draw)
    height, width = classes.shape
    whole = torch.zeros(3, protocol.crop, protocol.crop)
    filled = torch.full((protocol.crop, protocol.crop), LEFT_OUT, dtype=torch.uint8)
    whole[:, :height, :width] = normalised(pixels, normalisation)
    filled[:height, :width] = torch.from_numpy(classes.copy())
    return whole, filled


def distorted(pixels: UInt8[np.ndarray, "h w 3"], draw: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Brightness, contrast, saturation and hue, each with even chance; contrast before or after the colours."""
    if draw.random() < 0.5:
        pixels = _clipped(pixels + draw.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast = draw.uniform(*FACTOR) if draw.random() < 0.5 else 1.0
    first = draw.random() < 0.5
    pixels = _clipped(pixels * contrast) if first else pixels
    hsv = np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("HSV"))
    if draw.random() < 0.5:
        hsv[..., 1] = _clipped(hsv[..., 1] * draw.uniform(*FACTOR))
    if draw.random() < 0.5:
        hsv[..., 0] = (hsv[..., 0].astype(int) + round(256 * draw.uniform(-HUE, HUE))) % 256
    pixels = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
    return pixels if first else _clipped(pixels * contrast)


def _is_varied(classes: np.ndarray, max_share: float) -> bool:
    """Whether there are two classes, and none has more than its share of the pixels that count."""
    counts = np.bincount(classes[classes != LEFT_OUT].ravel())
    return int(np.count_nonzero(counts)) > 1 and float(counts.max()) < max_share * float(counts.sum())


def scaled(size: tuple[int, int], short: int) -> tuple[int, int]:
    """(width, height) with the short side as asked for."""
    width, height = (max(1, round(side * short / min(size))) for side in size)
    return width, height


def _clipped(values: np.ndarray) -> np.ndarray:
    return values.clip(0, 255).astype(np.uint8)


def normalised(pixels: UInt8[np.ndarray, "h w 3"], normalisation: Normalisation) -> Float[Tensor, "3 h w"]:
    """As the network wants it."""
    mean, std = (torch.tensor(each)[:, None, None] for each in normalisation)
    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - mean) / std
