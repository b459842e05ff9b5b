"""Propagate the masks of a video's first frame by the similarity of a frozen backbone's features.

https://github.com/facebookresearch/dino, eval_video_segmentation.py at 7c446df, after https://arxiv.org/abs/1905.11954.

Shapes: h x w pixels, k = objects + 1 classes, c channels, f frames with labels, rows x columns of the feature maps,
p = rows * columns positions, s of them.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize, one_hot

from ssl_eval.feature_maps import OutputAndFeatureMap, patch_of
from ssl_eval.features import evaluating
from ssl_eval.image_files import too_thin

MAX_SIMILARITIES = 2**25
"""Similarities computed at once: 128 MB."""


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """Options of the label propagation, with the defaults of the official script.

    Attributes:
        frames: number of preceding frames used as sources besides the first frame.
        radius: radius of the square search window, in positions of the feature map; None for no window.
        neighbors: number of most similar positions, over all frames.
        temperature: temperature of the weights exp(cosine / temperature).
    """

    frames: int = 7
    radius: int | None = 12
    neighbors: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        least = min(self.neighbors, 1 if self.radius is None else self.radius)
        if self.frames < 0 or least < 1 or self.temperature <= 0:
            raise ValueError(
                f"expected frames of 0 or more, neighbors and radius of 1 or more, temperature above 0, got {self}"
            )


def propagate(
    target: Float[Tensor, "c rows columns"],
    sources: Sequence[Float[Tensor, "c rows columns"]],
    labels: Sequence[Float[Tensor, "k rows columns"]],
    options: PropagationConfig,
) -> Float[Tensor, "k rows columns"]:
    """Average the labels of the most similar positions, weighted by exp(cosine / temperature).

    Args:
        target: features of the frame without labels.
        sources: features of the frames with labels.
        labels: labels of these frames.
        options: see `PropagationConfig`.
    """
    rows, columns = target.shape[1:]
    asked = normalize(target.flatten(1).T, dim=1)
    known = normalize(torch.stack(list(sources)).flatten(2), dim=1)
    given = torch.stack(list(labels)).flatten(2).permute(0, 2, 1).flatten(0, 1)
    at_once = max(1, MAX_SIMILARITIES // (len(known) * known.shape[2]))
    parts = []
    for start in range(0, len(asked), at_once):
        likeness = asked[start : start + at_once] @ known / options.temperature
        weights = likeness.exp()
        if options.radius is not None:
            weights = weights * _window(start, likeness.shape[1], rows, columns, options.radius).to(weights.device)
        weights = _largest(weights.permute(1, 0, 2).flatten(1), options.neighbors)
        parts.append(weights @ given / weights.sum(dim=1, keepdim=True))
    return torch.cat(parts).T.unflatten(1, (-1, columns))


def _largest(weights: Float[Tensor, "s _"], count: int) -> Float[Tensor, "s _"]:
    """Set all but the largest weights to zero; ties with the smallest of them are kept."""
    least = weights.topk(min(count, weights.shape[1]), dim=1).values[:, -1:]
    return torch.where(weights < least, 0, weights)


def _window(start: int, count: int, rows: int, columns: int, radius: int) -> Bool[Tensor, "s p"]:
    """Return which positions are in the search windows of some positions."""
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    near = [(axis[start : start + count, None] - axis).abs() <= radius for axis in (row, column)]
    return near[0] & near[1]


MULTIPLE = 64
"""The longer edge is rounded down to a multiple of it, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Preprocessing of video frames.

    Attributes:
        mean: mean of values in [0, 1].
        std: standard deviation of values in [0, 1]; the official script has 0.228 instead of 0.229.
        short_side: length of the shorter edge in pixels.
        device: device of the network.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int = 480
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if self.short_side < MULTIPLE:
            raise ValueError(f"expected frames of {MULTIPLE} or more pixels, got {self.short_side}; DINO uses 480")


@torch.no_grad()
def propagate_masks(
    network: OutputAndFeatureMap,
    images: Iterable[UInt8[ndarray, "h w 3"]],
    first: UInt8[ndarray, "h w"],
    frames: Frames,
    options: PropagationConfig,
) -> Iterator[UInt8[ndarray, "h w"]]:
    """Yield a mask of each frame after the first; the last `options.frames` feature maps are kept in memory.

    Args:
        network: backbone with its feature map.
        images: the frames, from the first on.
        first: mask of the first frame: 0 or object numbers, possibly with gaps.
        frames: preprocessing of the frames.
        options: options of the propagation.

    Raises:
        ValueError: mask and frame differ in size.
    """
    network.to(frames.device)
    numbers = np.union1d(first, [0]).astype(np.uint8)
    places = np.searchsorted(numbers, first).astype(np.uint8)  # consecutive classes 0, 1, 2, ...
    origin: tuple[Tensor, Tensor] | None = None
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=options.frames)
    for image in images:
        if (why := too_thin(image.shape[1], image.shape[0])) is not None:
            raise ValueError(f"cannot propagate masks to a frame ({why})")
        if image.shape[:2] != first.shape:
            raise ValueError(f"expected a mask of the frames' size {list(image.shape[:2])}, got {list(first.shape)}")
        seen, size = _feature_map(network, image, frames)
        if origin is None:
            origin = (seen, _shrunk_labels(places, seen.shape[1:]).to(seen.device))
            continue
        maps, labels = zip(origin, *recent, strict=True)
        propagated = propagate(seen, maps, labels, options)
        recent.append((seen, propagated))
        yield numbers[_mask(propagated, size, first.shape)]


def _feature_map(
    network: OutputAndFeatureMap, image: UInt8[ndarray, "h w 3"], frames: Frames
) -> tuple[Float[Tensor, "c rows columns"], tuple[int, int]]:
    """Return the feature map of a frame, and the size that the frame was resized to."""
    size = network_size(image.shape[:2], frames.short_side, patch_of(network.network.backbone))
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    values = interpolate(pixels, size, mode="bilinear", align_corners=False).round() / 255
    mean, std = (values.new_tensor(each)[:, None, None] for each in (frames.mean, frames.std))
    with evaluating(network):
        _, maps = network(((values - mean) / std).to(frames.device))
    return maps[0], size


def network_size(size: Sequence[int], short_side: int, patch: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width with the given shorter edge; the longer one a multiple of MULTIPLE, both of patches."""
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
    """Return the class with the largest value at each pixel, after scaling the values of each class to [0, 1]."""
    large = interpolate(labels[None], size, mode="bilinear", align_corners=False)[0]
    low, high = (bound(large, dim=(1, 2), keepdim=True) for bound in (torch.amin, torch.amax))
    alike = torch.where(high > 0, torch.inf, 0)  # a class that every pixel has alike wins
    stretched = torch.where(high > low, (large - low) / (high - low), alike)
    classes = stretched.argmax(dim=0).to(torch.uint8).cpu().numpy()
    return np.array(Image.fromarray(classes).resize((own[1], own[0]), Image.Resampling.NEAREST))
