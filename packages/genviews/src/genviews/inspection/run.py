"""Sample and score pairs, and write them to one HTML page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

import pairquality
from genviews.inspection.cards import make_cards
from genviews.inspection.histograms import Histogram, histogram
from genviews.inspection.manifest_stats import ManifestStats, manifest_stats
from genviews.inspection.options import InspectOptions
from genviews.inspection.page import Report, Scoring, render
from genviews.inspection.sampling import draw_rows
from genviews.inspection.scoring import Score, Scorer
from genviews_core.device import resolve_device
from genviews_core.files import atomic_write, check_writable
from genviews_core.progress import progress_bar
from viewgen.manifest import open_manifest


def run(options: InspectOptions) -> str:
    """Write the page and return a message about it."""
    check_writable(options.out)
    scorer = open_scorer(options)
    manifest = open_manifest(options.views)
    wanted = options.count if scorer is None else max(options.count, options.scored or 4 * options.count)
    rows = draw_rows(manifest, wanted, options.seed)
    if scorer is None:
        results: list[Score | str | None] = [None] * len(rows)
    else:
        with progress_bar("scored") as update:
            results = [*scorer(options.images, options.views, rows, update)]
    failures = [(row.path, why) for row, why in zip(rows, results, strict=True) if isinstance(why, str)]
    pairs = [(row, score) for row, score in zip(rows, results, strict=True) if not isinstance(score, str)]
    cards, unread = make_cards(
        options.images,
        options.views,
        pairs,
        count=options.count,
        extremes=options.extremes,
        gamma=options.gamma,
        tile=options.tile,
    )
    if not cards:
        raise ValueError(
            f"expected readable pairs, got none among {len(rows)} ({(failures + unread)[0][1]}); check the two folders"
        )
    stats = manifest_stats(manifest)
    scores = [score for _, score in pairs if score is not None]
    report = Report(
        images=options.images.resolve().name,
        views=options.views.resolve().name,
        seed=options.seed,
        stats=stats,
        scoring=scoring_summary(options, scorer, scores) if scorer else None,
        histograms=distributions(stats, scores),
        cards=cards,
        failures=failures + unread,
    )
    atomic_write(options.out, render(report))
    return f"{options.out}: {len(cards)} of {stats.views} pairs, {options.out.stat().st_size / 1e6:.1f} MB"


def open_scorer(options: InspectOptions) -> Scorer | None:
    """Open PCA and encoder if a PCA is given."""
    if min(options.count, options.tile, options.batch_size, options.workers) < 1:
        raise ValueError("expected --count, --tile, --batch-size and --workers of 1 or more, got less")
    if min(options.extremes, options.gamma) < 0:
        raise ValueError("expected --extremes and --gamma of 0 or more, got less")
    if options.pca is None:
        if options.encoder is not None:
            raise ValueError("expected --pca FILE with --encoder, the PCA fitted on that encoder, got none")
        return None
    pca = pairquality.ForegroundPCA.load(options.pca)
    known = pca.fitted_on
    if known is None:
        raise ValueError(
            f"{options.pca} does not record the encoder it was fitted on; create it with `pairquality fit`"
        )
    device = resolve_device(options.device)
    encoder = pairquality.load_encoder(
        options.encoder or known.encoder,
        size=options.size or known.size,
        mean=known.mean,
        std=known.std,
        device=device,
    )
    pca.validate_encoder(encoder)
    return Scorer(encoder=encoder, pca=pca, device=str(device), batch_size=options.batch_size, workers=options.workers)


def scoring_summary(options: InspectOptions, scorer: Scorer, scores: Sequence[Score]) -> Scoring:
    """Return how pairs were scored, and the effective fraction of their weights."""
    qualities = [round(score.quality, 6) for score in scores]
    weights = pairquality.pair_weights(torch.tensor(qualities, dtype=torch.float64), options.gamma).double()
    return Scoring(
        encoder=scorer.encoder.name,
        pca=options.pca.name if options.pca else "",
        size=scorer.encoder.size,
        gamma=options.gamma,
        qualities=qualities,
        effective=float(weights.sum() ** 2 / weights.square().sum() / len(weights)),
    )


def distributions(stats: ManifestStats, scores: Sequence[Score]) -> list[Histogram]:
    """Return the histograms that have data."""
    quality = np.array([round(score.quality, 6) for score in scores])  # a pair of equal images has 0, not -1e-8
    ratios = {
        "source": np.array([score.source.ratio for score in scores]),
        "view": np.array([score.view.ratio for score in scores]),
    }
    found = [
        histogram("Quality q of the scored pairs", {"pairs": lambda: [quality]}),
        histogram("Foreground ratio, scored pairs", {name: lambda r=ratio: [r] for name, ratio in ratios.items()}),
        stats.strength,
        stats.foreground_ratio,
    ]
    return [each for each in found if each is not None]
