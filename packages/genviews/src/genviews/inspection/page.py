"""The page: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genviews.inspection.cards import Card
from genviews.inspection.histograms import Histogram
from genviews.inspection.manifest_stats import Survey
from ssl_eval.report import render_page


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How pairs were scored, and what came of it.

    Attributes:
        encoder: its name.
        pca: its file.
        size: side in pixels of the encoder's inputs.
        gamma: sharpness of the weights.
        qualities: of all scored pairs.
        effective: effective sample size of the weights, as a share of the pairs.
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
    """All that the page shows."""

    images: str
    views: str
    seed: int
    survey: Survey
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
    """The page as text; the same report gives the same page."""
    return render_page("genviews.inspection", {"signed": signed}, title=f"Pairs of {report.views}", report=report)


def signed(value: float) -> str:
    """+0.123, or −0.123 with a true minus; never −0.000."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "\N{MINUS SIGN}")
