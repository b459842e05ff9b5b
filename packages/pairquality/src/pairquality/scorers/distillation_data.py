"""Training data of the distilled scorer: augmented views, and the encoder's tokens and pair scores of them.

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
"""Images, and the images that the other view of each pair is cropped from: synthetic views, or the same images."""


def seeded_generator(*names: object) -> torch.Generator:
    """Return a generator seeded by a hash of names."""
    digest = blake2b("/".join(map(str, ("distill", *names))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def decode_size(size: int) -> int:
    """Return the image size from which crops of `size` are cut, as in training: 288 px for 224, 32 for 32."""
    return size if size <= 64 else size * 9 // 7


@dataclass(frozen=True, kw_only=True)
class PairDataset:
    """Images and, optionally, their synthetic views on disk.

    Attributes:
        root: folder of the images.
        views: folder with `<key>.0.png` or `<key>.0.jpg` for each key, or None.
        keys: keys of the images.
        size: size that images are resized to, in pixels.
        workers: threads that read images.
    """

    root: Path
    views: Path | None
    keys: Sequence[str]
    size: int
    workers: int

    def in_order(self, batch_size: int) -> Iterator[ImagePairs]:
        """Yield batches of all images once."""
        yield from filter(None, self._read(iter(self.keys), batch_size))

    def shuffled(self, batch_size: int, seed: int, start: int = 0) -> Iterator[ImagePairs]:
        """Yield batches endlessly from batch `start` on, with a new permutation every epoch.

        Raises:
            ValueError: none of the images of a batch can be read.
        """
        for images in self._read(self._order(seed, start * batch_size), batch_size):
            if images is None:
                raise ValueError(f"expected readable images under {self.root}, got none in a batch of {batch_size}")
            yield images

    def _order(self, seed: int, start: int) -> Iterator[str]:
        epoch, skipped = divmod(start, len(self.keys))
        while True:
            order = np.random.default_rng(seeded_generator(seed, "order", epoch).initial_seed())
            for place in order.permutation(len(self.keys))[skipped:]:
                yield self.keys[int(place)]
            epoch, skipped = epoch + 1, 0

    def _read(self, keys: Iterator[str], batch_size: int) -> Iterator[ImagePairs | None]:
        """Yield batches without unreadable images; None if all are."""
        for batch in read_batches(self.root, keys, self.size, batch_size=batch_size, workers=self.workers):
            readable = [(key, image) for key, image in batch if isinstance(image, Tensor)]
            if not readable:
                yield None
                continue
            images = torch.stack([image for _, image in readable])
            yield images, images if self.views is None else torch.stack([self._view(*item) for item in readable])

    def _view(self, key: str, image: Tensor) -> Tensor:
        assert self.views is not None
        for suffix in ("png", "jpg"):
            path = self.views / f"{key}.0.{suffix}"
            if path.exists():
                try:
                    return read_image(path, self.size)
                except UnreadableImage:
                    break
        return image


@dataclass(frozen=True, kw_only=True, eq=False)
class DistillBatch:
    """Views with the encoder's outputs.

    Attributes:
        views: views in [0, 1], the first of all pairs, then the second.
        tokens: the encoder's tokens.
        scores: the encoder's scores of the pairs (i, b + i).
    """

    views: Float[Tensor, "n 3 h w"]
    tokens: Float[Tensor, "n l d"]
    scores: PairScores


@dataclass(frozen=True)
class Teacher:
    """The encoder to distill, with its augmentations.

    Attributes:
        encoder: frozen encoder.
        pca: PCA fitted on it.
        make_views: augmentation.
        device: device of the batches.
    """

    encoder: FeatureEncoder
    pca: ForegroundPCA
    make_views: MakeViews
    device: torch.device

    @torch.no_grad()
    def batch(self, images: ImagePairs, generator: torch.Generator) -> DistillBatch:
        """Augment images and encode the views."""
        device = self.encoder.mean.device
        views = torch.cat([self.make_views(half.to(device), generator) for half in images])
        views = views.contiguous(memory_format=torch.channels_last)
        tokens = self.encoder(views)
        scores = score_tokens(self.pca, *tokens.chunk(2))
        parts = {name: getattr(scores, name).to(self.device) for name in ("foreground", "background", "quality")}
        return DistillBatch(views=views.to(self.device), tokens=tokens.to(self.device), scores=PairScores(**parts))
