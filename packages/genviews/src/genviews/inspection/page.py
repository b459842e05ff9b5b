"""Content of the inspection page, and its rendering as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genviews.inspection.cards import Card
from genviews.inspection.histograms import Histogram
from genviews.inspection.manifest_stats import ManifestStats
from ssl_eval.report import render_page


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Settings and results of the scoring.

    Attributes:
        encoder: name of the encoder.
        pca: name of the PCA's file.
        size: input size of the encoder in pixels.
        gamma: sharpness of the weights.
        qualities: quality q of every scored pair.
        effective: effective sample size of the weights, as a fraction of the pairs.
    """

    encoder: str
    pca: str
    size: int
    gamma: float
    qualities: Sequence[float]
    effective: float

    @property
    def mean(self) -> float:
        """Mean quality."""
        return sum(self.qualities) / len(self.qualities)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Content of the page."""

    images: str
    views: str
    seed: int
    stats: ManifestStats
    scoring: Scoring | None
    histograms: Sequence[Histogram]
    cards: Sequence[Card]
    failures: Sequence[tuple[str, str]]

    def ranked(self, why: str) -> list[Card]:
        """The "best" or "worst" cards, the most extreme first."""
        return sorted(
            (card for card in self.cards if why in card.why and card.rank is not None),
            key=lambda card: card.rank or 0,
            reverse=why == "worst",
        )


def render(report: Report) -> str:
    """Render the page as HTML; deterministic."""
    return render_page("genviews.inspection", {"signed": signed}, title=f"Pairs of {report.views}", report=report)


def signed(value: float) -> str:
    """Format with a sign and three decimals: +0.123 or −0.123 (U+2212); zero is +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "\N{MINUS SIGN}")
