"""The pairs that are shown: chosen among those drawn, with small pictures."""

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
    """A pair as it is shown.

    Attributes:
        place: in the random order of all pairs drawn.
        row: of the manifest.
        why: "sample", "best", "worst".
        pictures: source, view and, of an interpolated view, its partner, as data URIs by name.
        maps: foreground maps of source and view by name; none if pairs are not scored.
        score: None if pairs are not scored.
        weight: of the pair among all that are scored.
        rank: by quality, 1 the best.
    """

    place: int
    row: Row
    why: tuple[str, ...]
    pictures: dict[str, str]
    maps: dict[str, str]
    score: Score | None = None
    weight: float | None = None
    rank: int | None = None

    @property
    def brief(self) -> str:
        """What made the view, in a line."""
        row = self.row
        strength = row.strength is not None and f"{strength_unit(row.generator)} {row.strength:g}"
        alpha = row.alpha is not None and f"alpha {row.alpha:.2f}"
        partner = row.partner_key and f"{'is' if row.alpha is None else 'with'} {row.partner_key}"
        return " · ".join(part for part in (f"view {row.k}", row.generator, strength, alpha, partner) if part)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the manifest says of the view; what it leaves open is left out."""
        row = self.row
        said = {
            "Image": row.key,
            "View": str(row.k),
            "File": row.path,
            "Generator": row.generator,
            "Model": row.model,
            "Model's hash": row.model_hash,
            "Seed": str(row.seed),
            strength_unit(row.generator).capitalize(): _number(row.strength),
            "Foreground ratio told": _number(row.foreground_ratio),
            "Partner": row.partner_key,
            "Alpha": _number(row.alpha),
            "Supervision": row.supervision,
            "Licence": row.licence,
            "Size": f"{row.width} × {row.height} px",
            "SHA-256": row.sha256,
        }
        return [(name, value) for name, value in said.items() if value]


def make_cards(
    images: Path, views: Path, pairs: Sequence[Pair], *, count: int, extremes: int, gamma: float, tile: int
) -> tuple[list[Card], list[tuple[str, str]]]:
    """The chosen pairs, best first or, if they are not scored, in random order.

    Args:
        images: the sources' folder.
        views: their folder.
        pairs: drawn ones in random order; all scored or none.
        count: how many of them are the random sample.
        extremes: best pairs shown too, and as many worst ones.
        gamma: of the weights.
        tile: side of the pictures in pixels.

    Returns:
        The cards, and (file, reason) of each pair whose pictures cannot be read.
    """
    qualities = [score.quality for _, score in pairs if score is not None]
    ranked = sorted(range(len(qualities)), key=lambda place: -qualities[place])
    rank = {place: order for order, place in enumerate(ranked, start=1)}
    weights = pairquality.pair_weights(torch.tensor(qualities), gamma).tolist() if qualities else []
    cards, unread = [], []
    for place, why in chosen_places(len(pairs), ranked, count, extremes).items():
        row, score = pairs[place]
        maps, scored = {}, {}
        if score is not None:
            maps = {"source": map_picture(score.source.map), "view": map_picture(score.view.map)}
            scored = {"score": score, "weight": weights[place], "rank": rank[place]}
        try:
            pictures = _pictures(images, views, row, tile)
        except viewgen.UnreadableImage as error:
            unread.append((row.path, str(error)))
            continue
        cards.append(Card(place=place, row=row, why=tuple(sorted(why)), pictures=pictures, maps=maps, **scored))
    return sorted(cards, key=lambda card: (card.rank or 0, card.place)), unread


def chosen_places(total: int, ranked: Sequence[int], count: int, extremes: int) -> dict[int, set[str]]:
    """The places shown, each with why: "sample", "best", "worst".

    Args:
        total: pairs, in random order.
        ranked: their places from the best to the worst; empty if they are not scored.
        count: the first so many are the random sample.
        extremes: best pairs and as many worst ones; no pair is both.
    """
    shown: dict[int, set[str]] = {place: {"sample"} for place in range(min(count, total))}
    few = min(extremes, len(ranked) // 2)
    for why, places in (("best", ranked[:few]), ("worst", ranked[len(ranked) - few :])):
        for place in places:
            shown.setdefault(place, set()).add(why)
    return shown


def _pictures(images: Path, views: Path, row: Row, tile: int) -> dict[str, str]:
    paths = {"source": key_path(images, row.key), "view": view_path(views, row.path)}
    if row.partner_key is not None and row.alpha is not None:  # without alpha the partner is the view
        paths["partner"] = key_path(images, row.partner_key)
    return {name: thumbnail(path, tile) for name, path in paths.items()}


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
