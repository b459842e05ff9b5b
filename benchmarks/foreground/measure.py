"""Compare foreground maps with masks.

Shapes: n images, s height and width in pixels, l tokens, d token width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pairquality import FeatureEncoder, ForegroundPCA, fit_pca

Grid = tuple[int, int]
BETA_SQUARED = 0.3
"""Weight of recall in the F-measure, as in saliency benchmarks (https://arxiv.org/abs/1501.02741)."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Results of one encoder at one size; IoU and F-measure are means over images.

    Attributes:
        images: number of images.
        share_object: mean fraction of object pixels.
        margin: margin of the orientation, see `ForegroundPCA`.
        sign_right: whether projections are higher inside the masks than outside, over all images together.
        sign_right_per_image: fraction of images for which they are.
        iou_map: IoU of the map at its threshold.
        iou_signed: IoU of the map with the sign that fits the masks of the data set best.
        iou_centre: IoU of a centered disc.
        iou_random: IoU of random tokens.
        f_map: F-measure of the map at its threshold.
        f_signed: F-measure of the map with the best sign.
        f_centre: F-measure of a centered disc.
        f_random: F-measure of random tokens.
    """

    images: int
    share_object: float
    margin: float
    sign_right: bool
    sign_right_per_image: float
    iou_map: float
    iou_signed: float
    iou_centre: float
    iou_random: float
    f_map: float
    f_signed: float
    f_centre: float
    f_random: float


def measure(
    encoder: FeatureEncoder,
    images: UInt8[Tensor, "n 3 s s"],
    masks: Bool[Tensor, "n s s"],
    *,
    share_foreground: float,
    skip_border: int,
    batch_size: int,
    seed: int,
) -> Figures:
    """Fit the PCA on the images without masks, then compare its maps with the masks."""
    tokens = torch.cat([encoder(batch.to(encoder.mean.device)).cpu() for batch in images.split(batch_size)])
    pca = fit_pca(
        tokens.split(batch_size), share_foreground, grid=encoder.grid, skip_border=skip_border, encoder=encoder
    )
    return compare(pca, tokens, encoder.grid, masks, seed=seed)


def measure_layers(
    encoder: FeatureEncoder,
    layers: Sequence[str],
    images: UInt8[Tensor, "n 3 s s"],
    masks: Bool[Tensor, "n s s"],
    *,
    share_foreground: float,
    skip_border: int,
    batch_size: int,
    seed: int,
) -> dict[str, tuple[Grid, Figures, Figures]]:
    """Measure maps of several layers, each fitted on every other image.

    Returns:
        By layer: its grid, the figures on the images of the fit, by which a layer can be chosen, and those on the
        other images.
    """
    first, second = slice(0, None, 2), slice(1, None, 2)
    found = {}
    for layer, (tokens, grid) in tokens_of(encoder, layers, images, batch_size).items():
        pca = fit_pca(tokens[first].split(batch_size), share_foreground, grid=grid, skip_border=skip_border)
        halves = (compare(pca, tokens[half], grid, masks[half], seed=seed) for half in (first, second))
        found[layer] = (grid, *halves)
    return found


def tokens_of(
    encoder: FeatureEncoder, layers: Sequence[str], images: UInt8[Tensor, "n 3 s s"], batch_size: int
) -> dict[str, tuple[Float[Tensor, "n _ _"], Grid]]:
    """Return the tokens and grid of each layer, a submodule of the network or "last", from one pass over the images."""
    taken: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    grids = {"last": encoder.grid}

    def keep(layer: str, _module: nn.Module, _images: object, features: Tensor) -> None:
        grids[layer] = (features.shape[2], features.shape[3])
        taken[layer].append(features.flatten(2).transpose(1, 2).float().cpu())

    hooks = [
        encoder.network.get_submodule(layer).register_forward_hook(partial(keep, layer))
        for layer in layers
        if layer != "last"
    ]
    for batch in images.split(batch_size):
        tokens = encoder(batch.to(encoder.mean.device)).cpu()
        if "last" in taken:
            taken["last"].append(tokens)
    for hook in hooks:
        hook.remove()
    return {layer: (torch.cat(tokens), grids[layer]) for layer, tokens in taken.items()}


def compare(
    pca: ForegroundPCA, tokens: Float[Tensor, "n l d"], grid: Grid, masks: Bool[Tensor, "n s s"], *, seed: int
) -> Figures:
    """Compare the maps of these tokens, and maps that see nothing, with the masks."""
    size, share = masks.shape[-1], pca.share_foreground
    soft = enlarged(pca.project(tokens), grid, size)
    found = soft > pca.threshold
    inside, outside = contrast(soft, masks)
    right = bool((inside.sum() / masks.sum()) > (outside.sum() / (~masks).sum()))
    noise = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(seed))
    guesses = {
        "map": found,
        "signed": found if right else soft < turned_threshold(pca, tokens),
        "centre": disc(size, share).expand_as(masks),
        "random": enlarged(noise, grid, size, "nearest") > 1 - share,
    }
    counts = masks.flatten(1).sum(dim=1)
    per_image = inside / counts > outside / (masks[0].numel() - counts)
    scores = {f"{kind}_{name}": score(guess, masks) for name, guess in guesses.items() for kind, score in KINDS.items()}
    return Figures(
        images=len(masks),
        share_object=float(masks.float().mean()),
        margin=pca.margin,
        sign_right=right,
        sign_right_per_image=float(per_image.float().mean()),
        **scores,
    )


def contrast(soft: Float[Tensor, "n s s"], masks: Bool[Tensor, "n s s"]) -> tuple[Tensor, Tensor]:
    """Return the sums of the projections of each image inside and outside its mask."""
    return (soft * masks).double().sum(dim=(1, 2)), (soft * ~masks).double().sum(dim=(1, 2))


def turned_threshold(pca: ForegroundPCA, tokens: Float[Tensor, "n l d"]) -> float:
    """Return the threshold below which there are as many tokens as above the PCA's threshold."""
    return float(
        pca.project(tokens).flatten().double().kthvalue(round(pca.share_foreground * tokens[..., 0].numel()))[0]
    )


def enlarged(
    tokens: Float[Tensor, "n l"], grid: tuple[int, int], size: int, mode: str = "bilinear"
) -> Float[Tensor, "n s s"]:
    """Upsample a grid of token values to pixels."""
    return interpolate(tokens.view(-1, 1, *grid), (size, size), mode=mode)[:, 0]


def disc(size: int, share: float) -> Bool[Tensor, "s s"]:
    """Return a mask of the given fraction of the pixels that are nearest to the center."""
    line = (torch.arange(size) - (size - 1) / 2).square()
    distance = line[:, None] + line[None, :]
    return distance <= distance.flatten().kthvalue(max(1, round(share * size * size)))[0]


def iou(found: Bool[Tensor, "n s s"], masks: Bool[Tensor, "n s s"]) -> float:
    """Return the mean intersection over union."""
    both, either = (found & masks).sum(dim=(1, 2)), (found | masks).sum(dim=(1, 2))
    return float((both / either).mean())


def f_measure(found: Bool[Tensor, "n s s"], masks: Bool[Tensor, "n s s"]) -> float:
    """Return the mean of (1 + b) P R / (b P + R) with b = 0.3, computed as (1 + b) hits / (b |mask| + |found|)."""
    hits = (found & masks).sum(dim=(1, 2))
    size = BETA_SQUARED * masks.sum(dim=(1, 2)) + found.sum(dim=(1, 2))
    return float(((1 + BETA_SQUARED) * hits / size).mean())


KINDS = {"iou": iou, "f": f_measure}
