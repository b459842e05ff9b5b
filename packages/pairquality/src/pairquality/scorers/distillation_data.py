"""What the distilled scorer learns from: augmented views, the encoder's tokens of them, its scores of their pairs.

Shapes: b images of S x S pixels, n = 2b views, l tokens of a view, d the encoder's width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from genviews_core.images import UnreadableImage, read_image
from pairquality.encoder import FeatureEncoder
from pairquality.foreground import ForegroundPCA
from pairquality.images import read_batches
from pairquality.score import PairScores
from pairquality.scorers.crops import MakeViews
from pairquality.scorers.scorer import score_tokens

ImagePairs = tuple[UInt8[Tensor, "b 3 S S"], UInt8[Tensor, "b 3 S S"]]
"""Images, and what the other view of each pair is cut from: their synthetic views, or the images again."""


def seeded_generator(*names: object) -> torch.Generator:
    """One for every draw, by name."""
    digest = blake2b("/".join(map(str, ("distill", *names))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def decode_size(size: int) -> int:
    """Side of the squares that crops of `size` are cut from: as training stores them, 288 px for 224, 32 for 32."""
    return size if size <= 64 else size * 9 // 7


@dataclass(frozen=True, kw_only=True)
class PairDataset:
    """Where images and their synthetic views are.

    Attributes:
        root: of the images.
        views: holds `<key>.0.png` or `<key>.0.jpg` of a key; None where there are none.
        keys: of the images.
        side: of the squares.
        workers: threads that read.
    """

    root: Path
    views: Path | None
    keys: Sequence[str]
    side: int
    workers: int

    def in_order(self, size: int) -> Iterator[ImagePairs]:
        """Every image once."""
        yield from filter(None, self._read(iter(self.keys), size))

    def shuffled(self, size: int, seed: int, start: int = 0) -> Iterator[ImagePairs]:
        """Without end, each epoch in an order of its own; from the batch `start` on.

        Raises:
            ValueError: none of a batch's images can be read.
        """
        for pictures in self._read(self._order(seed, start * size), size):
            if pictures is None:
                raise ValueError(f"None of {size} images under {self.root} can be read.")
            yield pictures

    def _order(self, seed: int, start: int) -> Iterator[str]:
        epoch, skipped = divmod(start, len(self.keys))
        while True:
            order = np.random.default_rng(seeded_generator(seed, "order", epoch).initial_seed())
            for place in order.permutation(len(self.keys))[skipped:]:
                yield self.keys[int(place)]
            epoch, skipped = epoch + 1, 0

    def _read(self, keys: Iterator[str], size: int) -> Iterator[ImagePairs | None]:
        """Batches without the images that cannot be read; None where that leaves nothing."""
        for batch in read_batches(self.root, keys, self.side, batch_size=size, workers=self.workers):
            found = [(key, image) for key, image in batch if isinstance(image, Tensor)]
            if not found:
                yield None
                continue
            images = torch.stack([image for _, image in found])
            yield images, images if self.views is None else torch.stack([self._view(*one) for one in found])

    def _view(self, key: str, image: Tensor) -> Tensor:
        assert self.views is not None
        for suffix in ("png", "jpg"):
            path = self.views / f"{key}.0.{suffix}"
            if path.exists():
                try:
                    return read_image(path, self.side)
                except UnreadableImage:
                    break
        return image


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillBatch:
    """One step's material.

    Attributes:
        views: in [0, 1], first those of the images, then the others of their pairs.
        tokens: the encoder's.
        scores: the encoder's, of the pairs (i, b + i).
    """

    views: Float[Tensor, "n 3 h w"]
    tokens: Float[Tensor, "n l d"]
    scores: PairScores


@dataclass(frozen=True)
class Teacher:
    """A frozen encoder that looks at views.

    Attributes:
        encoder: frozen.
        pca: fitted on it.
        make_views: augments.
        device: where its lessons go.
    """

    encoder: FeatureEncoder
    pca: ForegroundPCA
    make_views: MakeViews
    device: torch.device

    @torch.no_grad()
    def lesson(self, pictures: ImagePairs, generator: torch.Generator) -> DistillBatch:
        """Augmented views of pictures, and what the encoder makes of them."""
        place = self.encoder.mean.device
        views = torch.cat([self.make_views(side.to(place), generator) for side in pictures])
        views = views.contiguous(memory_format=torch.channels_last)
        tokens = self.encoder(views)
        scores = score_tokens(self.pca, *tokens.chunk(2))
        parts = {name: getattr(scores, name).to(self.device) for name in ("foreground", "background", "quality")}
        return DistillBatch(views=views.to(self.device), tokens=tokens.to(self.device), scores=PairScores(**parts))
