"""Select the pairs that the page shows, and make their thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import pairquality
import viewgen
from genviews.inspection.manifest_stats import strength_unit
from genviews.inspection.pictures import map_picture, thumbnail
from genviews.inspection.scoring import Score
from viewgen.keys import key_path
from viewgen.manifest import Row, view_path

Pair = tuple[Row, Score | None]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A pair on the page.

    Attributes:
        index: position in the random order of all sampled pairs.
        row: row of the manifest.
        why: reasons for showing it: "sample", "best", "worst".
        pictures: source, view and, of an interpolated view, its partner, as data URIs by name.
        maps: foreground maps of source and view by name; none if pairs are not scored.
        score: score of the pair; None if pairs are not scored.
        weight: weight of the pair among all scored pairs.
        rank: rank by quality, 1 for the best.
    """

    index: int
    row: Row
    why: tuple[str, ...]
    pictures: dict[str, str]
    maps: dict[str, str]
    score: Score | None = None
    weight: float | None = None
    rank: int | None = None

    @property
    def brief(self) -> str:
        """One line that describes how the view was generated."""
        row = self.row
        strength = row.strength is not None and f"{strength_unit(row.generator)} {row.strength:g}"
        alpha = row.alpha is not None and f"alpha {row.alpha:.2f}"
        partner = row.partner_key and f"{'is' if row.alpha is None else 'with'} {row.partner_key}"
        return " · ".join(part for part in (f"view {row.k}", row.generator, strength, alpha, partner) if part)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Fields of the manifest's row that are set, with their titles."""
        row = self.row
        fields = {
            "Image": row.key,
            "View": str(row.k),
            "File": row.path,
            "Generator": row.generator,
            "Model": row.model,
            "Model's hash": row.model_hash,
            "Seed": str(row.seed),
            strength_unit(row.generator).capitalize(): _number(row.strength),
            "Foreground ratio given": _number(row.foreground_ratio),
            "Partner": row.partner_key,
            "Alpha": _number(row.alpha),
            "Supervision": row.supervision,
            "Licence": row.licence,
            "Size": f"{row.width} × {row.height} px",
            "SHA-256": row.sha256,
        }
        return [(name, value) for name, value in fields.items() if value]


def make_cards(
    images: Path, views: Path, pairs: Sequence[Pair], *, count: int, extremes: int, gamma: float, tile: int
) -> tuple[list[Card], list[tuple[str, str]]]:
    """Make the cards of the chosen pairs, best first or, if they are not scored, in random order.

    Args:
        images: folder of the source images.
        views: folder of the views.
        pairs: sampled pairs in random order; all of them scored or none.
        count: size of the random sample that is shown.
        extremes: number of best pairs and of worst pairs that are shown as well.
        gamma: exponent of the weights.
        tile: size of the thumbnails in pixels.

    Returns:
        The cards, and (file, reason) of each pair whose pictures cannot be read.
    """
    qualities = [score.quality for _, score in pairs if score is not None]
    ranked = sorted(range(len(qualities)), key=lambda index: -qualities[index])
    rank = {index: order for order, index in enumerate(ranked, start=1)}
    weights = pairquality.pair_weights(torch.tensor(qualities), gamma).tolist() if qualities else []
    cards, unread = [], []
    for index, why in chosen_indices(len(pairs), ranked, count, extremes).items():
        row, score = pairs[index]
        maps, scored = {}, {}
        if score is not None:
            maps = {"source": map_picture(score.source.map), "view": map_picture(score.view.map)}
            scored = {"score": score, "weight": weights[index], "rank": rank[index]}
        try:
            pictures = _pictures(images, views, row, tile)
        except viewgen.UnreadableImage as error:
            unread.append((row.path, str(error)))
            continue
        cards.append(Card(index=index, row=row, why=tuple(sorted(why)), pictures=pictures, maps=maps, **scored))
    return sorted(cards, key=lambda card: (card.rank or 0, card.index)), unread


def chosen_indices(total: int, ranked: Sequence[int], count: int, extremes: int) -> dict[int, set[str]]:
    """Return the indices of the pairs to show, with the reasons: "sample", "best", "worst".

    Args:
        total: pairs, in random order.
        ranked: indices of the pairs from best to worst; empty if they are not scored.
        count: size of the random sample, the first pairs.
        extremes: number of best pairs and of worst pairs; no pair is both.
    """
    shown: dict[int, set[str]] = {index: {"sample"} for index in range(min(count, total))}
    few = min(extremes, len(ranked) // 2)
    for why, indices in (("best", ranked[:few]), ("worst", ranked[len(ranked) - few :])):
        for index in indices:
            shown.setdefault(index, set()).add(why)
    return shown


def _pictures(images: Path, views: Path, row: Row, tile: int) -> dict[str, str]:
    paths = {"source": key_path(images, row.key), "view": view_path(views, row.path)}
    if row.partner_key is not None and row.alpha is not None:  # without alpha the partner is the view
        paths["partner"] = key_path(images, row.partner_key)
    return {name: thumbnail(path, tile) for name, path in paths.items()}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
