"""Similarity of views to their images, and their cost: FID, SSIM, LPIPS, cosine, milliseconds, parameters.

Shapes: B pairs of a batch, H and W pixels, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ssl_eval.metric_networks import required
from ssl_eval.results import Result, machine
from ssl_eval.view_cost import Timer, count_parameters

Features = Callable[[UInt8[Tensor, "B 3 H W"]], Float[Tensor, "B D"]]
SSIM_SIGMA = 1.5
"""Standard deviation of the Gaussian window, which is 11 pixels wide; K1 0.01, K2 0.03: Wang et al. 2004 (https://doi.org/10.1109/TIP.2003.819861),
III B."""
SMALLEST = 6  # height and width in pixels: the window is reflected at the border


@dataclass(frozen=True, kw_only=True)
class ImageMetrics:
    """Metrics of pairs of images and views; None for metrics that were not requested.

    Attributes:
        pairs: number of pairs.
        ssim: mean structural similarity, 1 for equal images; over all pixels, the image mirrored at its border.
        ssim_deviation: standard deviation of the SSIM over the pairs.
        fid: Fréchet distance of the features of all images and of all views, 0 for equal ones. It depends on the
            number of pairs, and is too large with few.
        fid_features: network of the FID's features.
        lpips: mean learned perceptual distance, 0 for equal images.
        lpips_network: network of LPIPS.
        cosine: mean cosine of the embeddings of image and view.
        cosine_encoder: encoder of the embeddings.
        milliseconds: mean time to make one view, one at a time.
        parameters: number of parameters of the generator.
    """

    pairs: int
    ssim: float
    ssim_deviation: float
    fid: float | None = None
    fid_features: str = ""
    lpips: float | None = None
    lpips_network: str = ""
    cosine: float | None = None
    cosine_encoder: str = ""
    milliseconds: float | None = None
    parameters: int | None = None

    def results(self, *, recipe: str, views: str, data: str, seed: int = 0, seconds: float) -> list[Result]:
        """Return a result for each figure, with task "views", for tables and reports.

        Args:
            recipe: name of the generator.
            views: their hash, or another unique identifier, recorded as the backbone.
            data: name of the set of images.
            seed: seed of the views.
            seconds: the measurement took.
        """
        pairs = f"{self.pairs} pairs"
        figures = {
            "fid": (self.fid, f"{self.fid_features}, {pairs}"),
            "ssim": (self.ssim, pairs),
            "lpips": (self.lpips, f"{self.lpips_network}, {pairs}"),
            "cosine": (self.cosine, f"{self.cosine_encoder}, {pairs}"),
            "milliseconds": (self.milliseconds, "batch 1"),
            "parameters": (self.parameters, ""),
        }
        same: dict[str, Any] = {"backbone": views, "data": data, "seed": seed, "recipe": recipe, "seconds": seconds}
        return [
            Result(task="views", metric=metric, value=float(value), protocol=protocol, machine=machine(), **same)
            for metric, (value, protocol) in figures.items()
            if value is not None
        ]


@torch.no_grad()
def image_metrics(
    pairs: Iterable[tuple[Tensor, Tensor]],
    *,
    fid: Features | None = None,
    lpips: nn.Module | None = None,
    encoder: Features | None = None,
    make_view: Callable[[UInt8[Tensor, "1 3 H W"]], object] | None = None,
    timed: int = 1000,
    device: str | torch.device = "cpu",
) -> ImageMetrics:
    """Compare images with their views in one pass, in memory that does not grow with their number.

    The metrics of GenCL's Table 4 and GenView's Table 10 (https://arxiv.org/abs/2403.12003). FID is
    |m - n|^2 + tr(S + T - 2 (S T)^(1/2)) (https://arxiv.org/abs/1706.08500, eq. 6), of means and covariances summed in
    float64; LPIPS is eq. 1 of https://arxiv.org/abs/1801.03924. The arithmetic is torchmetrics'.

    Args:
        pairs: (images, views), both uint8 [B, 3, H, W] and of one size.
        fid: computes features of uint8 images: `load_inception`, or any other network as `ImageFeatures`; its `name` is
            recorded with the result.
        lpips: the network of `load_lpips`.
        encoder: embeds uint8 images for the cosine, as `ImageFeatures` does.
        make_view: generates the view of one image; timed on the first images.
        timed: number of images to time; 1,000 in GenCL.
        device: device of the computation. Networks that are modules are moved there.

    Raises:
        ValueError: no pairs, or fewer than two with fid; batches that are not such pairs; torchmetrics is missing.
    """
    sums = [_Similarity(), *([_Distance(lpips)] if lpips else []), *([_Cosine(encoder)] if encoder else [])]
    frechet = _Frechet(fid) if fid else None
    for network in (fid, lpips, encoder):
        if isinstance(network, nn.Module):
            network.eval().to(device)
    watch, count = Timer(device), 0
    for images, views in pairs:
        _check(images, views)
        images, views = images.to(device), views.to(device)
        for measure in sums:
            measure.add(images, views)
        if frechet is not None:
            frechet.add(images, views)
        if make_view is not None:
            for row in range(min(len(images), timed - watch.count)):
                watch(make_view, images[row : row + 1])
        count += len(images)
    if count < (1 if frechet is None else 2):
        raise ValueError(f"expected at least one pair, and two for FID, got {count}")
    figures: dict[str, Any] = {}
    for measure in sums:
        figures |= measure.compute()
    return ImageMetrics(
        pairs=count,
        **figures,
        **({} if frechet is None else frechet.compute()),
        milliseconds=watch.milliseconds if make_view else None,
        parameters=count_parameters(make_view) if isinstance(make_view, nn.Module) else None,
    )


class _Mean:
    """Mean and standard deviation of a value per pair."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def update(self, values: Float[Tensor, " B"]) -> None:
        """Add a batch."""
        wide = values.double()
        self._count += len(wide)
        self._sum += float(wide.sum())
        self._squares += float(wide.square().sum())

    @property
    def mean(self) -> float:
        """Mean of all values so far."""
        return self._sum / self._count

    @property
    def deviation(self) -> float:
        """Standard deviation of the values."""
        return math.sqrt(max(0.0, self._squares / self._count - self.mean**2))


class _Similarity(_Mean):
    """SSIM."""

    def __init__(self) -> None:
        super().__init__()
        self._ssim = required("torchmetrics.functional.image").structural_similarity_index_measure

    def add(self, images: Tensor, views: Tensor) -> None:
        """Add a batch."""
        levels = (images.float() / 255, views.float() / 255)
        ssim = self._ssim(*levels, sigma=SSIM_SIGMA, data_range=1.0, reduction="none")
        self.update(ssim.reshape(len(images)))

    def compute(self) -> dict[str, Any]:
        """Return the computed metrics."""
        return {"ssim": self.mean, "ssim_deviation": self.deviation}


class _Distance(_Mean):
    """LPIPS."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def add(self, images: Tensor, views: Tensor) -> None:
        """Add a batch."""
        self.update(self._network(images, views))

    def compute(self) -> dict[str, Any]:
        """Return the computed metrics."""
        return {"lpips": self.mean, "lpips_network": _name(self._network)}


class _Cosine(_Mean):
    """Cosine similarity of two embeddings."""

    def __init__(self, encoder: Features) -> None:
        super().__init__()
        self._encoder = encoder

    def add(self, images: Tensor, views: Tensor) -> None:
        """Add a batch."""
        self.update(nn.functional.cosine_similarity(self._encoder(images).double(), self._encoder(views).double()))

    def compute(self) -> dict[str, Any]:
        """Return the computed metrics."""
        return {"cosine": self.mean, "cosine_encoder": _name(self._encoder)}


class _Frechet:
    """FID with any features."""

    def __init__(self, features: Features) -> None:
        self._features, self._metric, self._kind = (
            features,
            None,
            required("torchmetrics.image.fid").FrechetInceptionDistance,
        )

    def add(self, images: Tensor, views: Tensor) -> None:
        """Add a batch."""
        for batch, real in ((images, True), (views, False)):
            features = self._features(batch)
            if features.ndim != 2:
                raise ValueError(
                    f"expected one vector per image from {_name(self._features)} for FID, got {list(features.shape)}"
                )
            if self._metric is None:
                self._metric = self._kind(feature=_Given(features.shape[1])).to(features.device)
            self._metric.update(features.double(), real=real)

    def compute(self) -> dict[str, Any]:
        """Return the computed metrics."""
        assert self._metric is not None
        return {"fid": float(self._metric.compute()), "fid_features": _name(self._features)}


class _Given(nn.Identity):
    """Precomputed features behind the interface that torchmetrics expects."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def _name(network: object) -> str:
    return getattr(network, "name", type(network).__name__)


def _check(images: Tensor, views: Tensor) -> None:
    """Check that these are uint8 pairs of one size."""
    shapes = " and ".join(f"{each.dtype} {list(each.shape)}" for each in (images, views)).replace("torch.", "")
    if images.dtype != torch.uint8 or views.dtype != torch.uint8 or images.shape != views.shape:
        raise ValueError(f"expected images and views as uint8 [B, 3, H, W] of one size, got {shapes}")
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
        raise ValueError(f"expected images [B, 3, H, W] of at least {SMALLEST} x {SMALLEST} pixels, got {shapes}")
