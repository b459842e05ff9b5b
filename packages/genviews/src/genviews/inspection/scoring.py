"""Foreground maps and scores of pairs, batch by batch.

Shapes: B pairs per batch, S input size of the encoder in pixels.
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
    """Foreground map (0 to 255) and foreground ratio (0 to 1) of one image of a pair."""

    map: UInt8[np.ndarray, "rows columns"]
    ratio: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """Scores of a pair: foreground similarity s_f, background similarity s_b, quality q = s_f - s_b."""

    foreground: float
    background: float
    quality: float
    source: Side
    view: Side


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores pairs on the central squares of source and view, without augmentation.

    Attributes:
        encoder: frozen encoder, images to token features.
        pca: foreground PCA fitted on features of this encoder.
        device: device of the encoder.
        batch_size: number of pairs per batch.
        workers: threads that read images.
    """

    encoder: pairquality.FeatureEncoder
    pca: pairquality.ForegroundPCA
    device: str
    batch_size: int
    workers: int

    def __call__(self, images: Path, views: Path, rows: Sequence[Row], on_progress: Progress) -> list[Score | str]:
        """Return the score of each row, or an error message if its images cannot be read.

        Raises:
            ValueError: the features are NaN or infinite.
        """
        results: list[Score | str] = []
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                read = list(pool.map(lambda row: self._read(images, views, row), batch))
                pairs = [pair for pair in read if isinstance(pair, Tensor)]
                scores = iter(self._score(torch.stack(pairs))) if pairs else iter(())
                results += [pair if isinstance(pair, str) else next(scores) for pair in read]
                on_progress(len(results), len(rows))
        return results

    def _read(self, images: Path, views: Path, row: Row) -> UInt8[Tensor, "2 3 S S"] | str:
        """Read source and view, or return an error message."""
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
            raise ValueError("expected finite features from the encoder, got NaN or infinity; check its weights")
        levels = (maps * 255).round().byte().cpu().numpy().reshape(-1, *self.encoder.grid)
        sides = [Side(map=each, ratio=ratio) for each, ratio in zip(levels, ratios, strict=True)]
        values = (scores.foreground.tolist(), scores.background.tolist(), scores.quality.tolist())
        for s_f, s_b, q, source, view in zip(*values, sides[::2], sides[1::2], strict=True):
            yield Score(foreground=s_f, background=s_b, quality=q, source=source, view=view)
