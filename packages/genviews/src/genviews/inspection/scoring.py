"""Foreground maps and scores of pairs, batch by batch.

Shapes: B pairs of a batch, S side of the encoder's images in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

import pairquality
import viewgen
from viewgen.keys import key_path
from viewgen.manifest import Row, view_path

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One picture of a pair: its foreground map, 0 to 255, and the share of it that is foreground."""

    map: UInt8[np.ndarray, "rows columns"]
    ratio: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """A pair's s_f, s_b and q = s_f - s_b."""

    foreground: float
    background: float
    quality: float
    source: Side
    view: Side


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores pairs as they are: the central square of source and view, without augmentation.

    Attributes:
        encoder: images -> tokens.
        pca: of that encoder's tokens.
        device: where the encoder runs.
        batch_size: pairs computed together.
        workers: threads that read images.
    """

    encoder: pairquality.FeatureEncoder
    pca: pairquality.ForegroundPCA
    device: str
    batch_size: int
    workers: int

    def __call__(self, images: Path, views: Path, rows: Sequence[Row], told: Progress) -> list[Score | str]:
        """The score of each row, or why it has none.

        Raises:
            ValueError: if the encoder gives NaN.
        """
        results: list[Score | str] = []
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                read = list(pool.map(lambda row: self._read(images, views, row), batch))
                pairs = [pair for pair in read if isinstance(pair, Tensor)]
                scores = iter(self._score(torch.stack(pairs))) if pairs else iter(())
                results += [pair if isinstance(pair, str) else next(scores) for pair in read]
                told(len(results), len(rows))
        return results

    def _read(self, images: Path, views: Path, row: Row) -> UInt8[Tensor, "2 3 S S"] | str:
        """Source and view, or why they cannot be read."""
        try:
            paths = key_path(images, row.key), view_path(views, row.path)
            return torch.stack([viewgen.read_image(path, self.encoder.size) for path in paths])
        except viewgen.UnreadableImage as error:
            return str(error)

    @torch.no_grad()
    def _score(self, pairs: UInt8[Tensor, "B 2 3 S S"]) -> Iterator[Score]:
        features = self.encoder(pairs.flatten(0, 1).to(self.device))
        maps = pairquality.foreground_maps(self.pca, features)
        ratios = pairquality.foreground_ratio(self.pca, features).tolist()
        scores = pairquality.pair_scores(features[::2], features[1::2], maps[::2], maps[1::2])
        if not scores.quality.isfinite().all():
            raise ValueError("the encoder gave NaN or infinite features: check its weights")
        levels = (maps * 255).round().byte().cpu().numpy().reshape(-1, *self.encoder.grid)
        sides = [Side(map=each, ratio=ratio) for each, ratio in zip(levels, ratios, strict=True)]
        values = (scores.foreground.tolist(), scores.background.tolist(), scores.quality.tolist())
        for s_f, s_b, q, source, view in zip(*values, sides[::2], sides[1::2], strict=True):
            yield Score(foreground=s_f, background=s_b, quality=q, source=source, view=view)
