"""Cost of pair weights in a ResNet-50 step, and rank correlation of the cheap scorers with the exact one.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from torch import Tensor

import sslzoo
from benchmarks.throughput.timing import rates
from genviews_core.backbones import last_map
from pairdata import Augment, FolderLoader
from pairquality import FeatureEncoder, ForegroundPCA, denormalize, fit_pca, load_encoder, rank_correlation
from pairquality.scorers import DistillConfig, ExactScorer, OnlineScorer, PairScorer, load_distilled
from pairquality.scorers.distilled import DistilledScorer, ScorerMetadata, ScorerNet
from sslzoo.methods import SimSiam

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, GRID = 224, (7, 7)


@dataclass(frozen=True, kw_only=True)
class QualityBenchmark:
    """Cost of each scorer relative to SimSiam's step with a ResNet-50 at 224 px, and, with images, its agreement.

    Attributes:
        batch_size: pairs per step.
        rounds: number of timed rounds.
        device: device of all networks.
        images: folder of real images; without it, agreement is not measured.
        views: folder of their synthetic views.
        encoder: encoder of the PCA, if it is no longer where `pairquality fit` found it.
        pca: file written by `pairquality fit`.
        scorer: file written by `pairquality distill`.
        backbone: backbone folder of the network whose feature maps the self scorer uses.
        layer: layer of these feature maps.
        pairs: number of pairs to rank.
        image_size: size of the ranked views in pixels.
    """

    batch_size: int = 16
    rounds: int = 3
    device: str = "cpu"
    images: Path | None = None
    views: Path | None = None
    encoder: str | None = None
    pca: Path | None = None
    scorer: Path | None = None
    backbone: Path | None = None
    layer: str | None = None
    pairs: int = 2000
    image_size: int = SIZE


def measure_quality(options: QualityBenchmark, encoder: FeatureEncoder | None = None) -> list[tuple[str, ...]]:
    """Return a row per scorer: ms per step, fraction of the step, rank correlation with exact.

    Args:
        options: options.
        encoder: encoder for ranking, if load_encoder does not know it.
    """
    milliseconds = costs(options)
    agreements = ranking(options, encoder) if options.images else {}
    step = milliseconds["step"]
    rows = []
    for name in dict.fromkeys([*milliseconds, *agreements]):
        cost = milliseconds.get(name)
        share = "" if cost is None or name == "step" else f"{100 * cost / step:.2f}%"
        agreement = f"{agreements[name]:.3f}" if name in agreements else ""
        rows.append((name, "" if cost is None else f"{cost:.1f}", share, agreement))
    return rows


def costs(options: QualityBenchmark) -> dict[str, float]:
    """Return milliseconds of the step and of each scorer on its two views; self includes its PCA updates, amortized."""
    views = torch.randn(2, options.batch_size, 3, SIZE, SIZE, device=options.device)
    first, second = (view.contiguous(memory_format=torch.channels_last) for view in views)
    method = SimSiam(sslzoo.create_backbone("resnet50")).to(options.device).to(memory_format=torch.channels_last)  # pyright: ignore
    tap = sslzoo.PairFeatureHook(method)
    step = _step(method, first, second)
    step()
    maps, itself = tap.pop(), OnlineScorer()
    tap.close()
    exact, distilled = _random_exact(options.device), _random_distilled(options.device)

    def a_period() -> None:
        for _ in range(itself.pca_interval):
            itself(first, second, maps)

    work: dict[str, Callable[[], object]] = {
        "step": step,
        "exact": lambda: exact(first, second),
        "distilled": lambda: distilled(first, second),
        "self": a_period,
    }
    measured = rates(work, items=1, rounds=options.rounds, warmup=1)
    found = {name: 1000 / rate for name, rate in measured.items()}
    return {**found, "self": found["self"] / itself.pca_interval}


def _step(method: SimSiam, first: Tensor, second: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(first.device.type, torch.bfloat16):
            loss = method([first, second])["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _random_exact(device: str) -> ExactScorer:
    """Return an exact scorer with a ConvNeXt-Base of random weights, of the size and cost of GenView's encoder."""
    network = timm.create_model("convnext_base", num_classes=0).to(memory_format=torch.channels_last)  # pyright: ignore
    encoder = FeatureEncoder(network, SIZE, take_map=last_map, autocast=torch.bfloat16).to(device)
    pca = fit_pca([encoder(torch.rand(8, 3, SIZE, SIZE, device=device))], encoder=encoder)
    return ExactScorer(encoder, pca, mean=MEAN, std=STD)


def _random_distilled(device: str) -> DistilledScorer:
    """Return a distilled scorer with the default sizes of `pairquality distill` and random weights."""
    config = DistillConfig()
    about = ScorerMetadata(
        encoder="none",
        encoder_hash="",
        pca_hash="",
        size=config.resolved_size(SIZE),
        mean=MEAN,
        std=STD,
        grid=GRID,
        widths=config.widths,
        depths=config.depths,
        training={},
        rank_correlation={},
    )
    student, direction = ScorerNet(config.subspace, GRID, config.widths, config.depths), torch.ones(config.subspace)
    return DistilledScorer(student, direction, about, mean=MEAN, std=STD, autocast=torch.bfloat16).to(device)


def ranking(options: QualityBenchmark, encoder: FeatureEncoder | None = None) -> dict[str, float]:
    """Return the rank correlation of each scorer's q with that of the exact scorer, on crops of real pairs.

    "exact, jitter again": the same crops with other jitter, grayscale and blur; "exact, crops again": other crops.
    """
    pca = ForegroundPCA.load(options.pca or "")
    known = pca.fitted_on
    assert known is not None
    if encoder is None:
        encoder = load_encoder(options.encoder or known.encoder, size=known.size, mean=known.mean, std=known.std)
    encoder = encoder.to(options.device)
    scorers: dict[str, PairScorer] = {"exact": ExactScorer(encoder, pca, mean=MEAN, std=STD)}
    if options.scorer:
        scorers["distilled"] = load_distilled(options.scorer, mean=MEAN, std=STD, device=options.device)
    found: dict[str, list[Tensor]] = {}
    for kind, first, second in _views(options):
        names = scorers if kind == "" else ("exact",)
        for name in names:
            found.setdefault(name + kind, []).append(scorers[name](first, second).quality)
    if options.backbone:
        found["self"] = _by_itself(options)
    values = {name: torch.cat(parts) for name, parts in found.items()}
    return {name: rank_correlation(values["exact"], other) for name, other in values.items() if name != "exact"}


def _by_itself(options: QualityBenchmark) -> list[Tensor]:
    """Return scores from a trained network's own feature maps; a first pass fits the foreground PCA."""
    assert options.backbone is not None
    network = sslzoo.load_backbone(options.backbone).to(options.device).eval()
    about = sslzoo.backbone_input(options.backbone)
    tap, scorer, passes = sslzoo.FeatureHook(network, options.layer), OnlineScorer(pca_interval=1), []
    shown = [(first, second) for kind, first, second in _views(options) if kind == ""]
    mean, std = (torch.tensor(about[name], device=options.device)[:, None, None] for name in ("mean", "std"))
    for _ in range(2):
        passes.append([])
        for first, second in shown:
            with torch.no_grad():
                for view in (first, second):
                    network((denormalize(view, MEAN, STD) - mean) / std)
            one, other = tap.pop()
            passes[-1].append(scorer(first, second, (one, other)).quality)
    return passes[-1]


def _views(options: QualityBenchmark) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield for each batch: crops, the same crops with other jitter, and other crops."""
    augment, generator = Augment(size=options.image_size, mean=MEAN, std=STD), torch.Generator().manual_seed(0)
    for pair in _pairs(options):
        draws, others = ([augment.draw(sizes, generator) for _, sizes in pair] for _ in range(2))
        again = [replace(new, boxes=old.boxes, flip=old.flip) for new, old in zip(others, draws, strict=True)]
        for kind, drawn in (("", draws), (", jitter again", again), (", crops again", others)):
            first, second = (augment.apply(images, each) for (images, _), each in zip(pair, drawn, strict=True))
            yield kind, first, second


def _pairs(options: QualityBenchmark) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Yield images and original sizes of both sides of pairs; without views, each image with itself."""
    loader = FolderLoader(
        options.images or "", batch_size=100, size=options.image_size, views=options.views, device=options.device
    )
    left = options.pairs
    for batch in loader:
        there = batch.view_exists[:, 0] if options.views else torch.ones_like(batch.index, dtype=torch.bool)
        rows = there.nonzero()[:left, 0]
        left -= len(rows)
        real = (batch.real[rows], batch.sizes[rows, 0])
        if len(rows):
            yield real, (batch.views[rows, 0], batch.sizes[rows, 1]) if options.views else real
        if not left:
            return
