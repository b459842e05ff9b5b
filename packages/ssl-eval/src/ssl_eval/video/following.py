"""Objects followed through a video from a mask of its first frame, by the features of a frozen backbone.

https://github.com/facebookresearch/dino, eval_video_segmentation.py at 7c446df.

Shapes: h x w pixels, k = objects + 1 classes, c channels, rows x columns of the backbone's map.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from ssl_eval.any_size import patch_of
from ssl_eval.feature_map import OutputAndMap
from ssl_eval.features import evaluating
from ssl_eval.image_files import too_thin
from ssl_eval.video.label_propagation import Propagation, propagate

MULTIPLE = 64
"""Of pixels, to which the long side is cut down."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """How the network sees frames.

    Attributes:
        mean: of values in [0, 1].
        std: of values in [0, 1]; the official script has 0.228 where all others have 0.229.
        short_side: pixels.
        device: where the network runs.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int = 480
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if self.short_side < MULTIPLE:
            raise ValueError(f"frames of {self.short_side} pixels are too small: give {MULTIPLE} or more, 480 as DINO")


@torch.no_grad()
def follow_objects(
    network: OutputAndMap,
    images: Iterable[UInt8[ndarray, "h w 3"]],
    first: UInt8[ndarray, "h w"],
    frames: Frames,
    options: Propagation,
) -> Iterator[UInt8[ndarray, "h w"]]:
    """A mask of each frame after the first, as soon as it is known; the last `options.frames` are kept.

    Args:
        network: the backbone and its map.
        images: the frames, from the first on.
        first: mask of the first frame: 0 or object numbers, possibly with gaps.
        frames: how they are seen.
        options: how labels are carried.

    Raises:
        ValueError: the mask is not of the frame's size.
    """
    network.to(frames.device)
    numbers = np.union1d(first, [0]).astype(np.uint8)
    places = np.searchsorted(numbers, first).astype(np.uint8)  # consecutive classes 0, 1, 2, ...
    origin: tuple[Tensor, Tensor] | None = None
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=options.frames)
    for image in images:
        if (why := too_thin(image.shape[1], image.shape[0])) is not None:
            raise ValueError(f"a frame cannot be followed: {why}")
        if image.shape[:2] != first.shape:
            raise ValueError(f"the mask has {list(first.shape)} pixels, and a frame {list(image.shape[:2])}")
        seen, size = _seen(network, image, frames)
        if origin is None:
            origin = (seen, _shrunk_labels(places, seen.shape[1:]).to(seen.device))
            continue
        maps, labels = zip(origin, *recent, strict=True)
        found = propagate(seen, maps, labels, options)
        recent.append((seen, found))
        yield numbers[_mask(found, size, first.shape)]


def _seen(
    network: OutputAndMap, image: UInt8[ndarray, "h w 3"], frames: Frames
) -> tuple[Float[Tensor, "c rows columns"], tuple[int, int]]:
    """The map of a frame, and the size that the frame was given."""
    size = seen_size(image.shape[:2], frames.short_side, patch_of(network.network.backbone))
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    values = interpolate(pixels, size, mode="bilinear", align_corners=False).round() / 255
    mean, std = (values.new_tensor(each)[:, None, None] for each in (frames.mean, frames.std))
    with evaluating(network):
        _, found = network(((values - mean) / std).to(frames.device))
    return found[0], size


def seen_size(size: Sequence[int], short_side: int, patch: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width: the short side as asked for, the long one by MULTIPLE; both cut down to whole patches."""
    height, width = size
    if height > width:
        new = [short_side * height // width // MULTIPLE * MULTIPLE, short_side]
    else:
        new = [short_side, short_side * width // height // MULTIPLE * MULTIPLE]
    down, right = patch or (1, 1)
    return new[0] // down * down, new[1] // right * right


def _shrunk_labels(mask: UInt8[ndarray, "h w"], grid: Sequence[int]) -> Float[Tensor, "k rows columns"]:
    rows, columns = grid
    small = np.array(Image.fromarray(mask).resize((columns, rows), Image.Resampling.NEAREST))
    return one_hot(torch.from_numpy(small).long(), int(mask.max()) + 1).permute(2, 0, 1).float()


def _mask(labels: Float[Tensor, "k rows columns"], size: tuple[int, int], own: Sequence[int]) -> UInt8[ndarray, "h w"]:
    """The largest class of each pixel, once every class is stretched to values from 0 to 1."""
    large = interpolate(labels[None], size, mode="bilinear", align_corners=False)[0]
    low, high = (bound(large, dim=(1, 2), keepdim=True) for bound in (torch.amin, torch.amax))
    alike = torch.where(high > 0, torch.inf, 0)  # a class that every pixel has alike wins
    stretched = torch.where(high > low, (large - low) / (high - low), alike)
    found = stretched.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return np.array(Image.fromarray(found).resize((own[1], own[0]), Image.Resampling.NEAREST))
