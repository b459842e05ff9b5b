"""Copy detection on Copydays: DINO's descriptor, its whitening, and the mean average precision on the official folders.

    original/200000.jpg          157 photographs
    strong/200001.jpg            229 printed, scanned, painted over ...; the first four characters identify the original
    jpegqual/3/200000.jpg        compressed at JPEG quality 3, 5, 8, 10, 15, 20, 30, 50 and 75
    crops/10/200000.jpg          with 10, 15, 20, 30, 40, 50, 60, 70 and 80 percent of the area cropped away

https://lear.inrialpes.fr/~jegou/data.php#copydays; facebookresearch/dino, eval_copy_detection.py at 7c446df.

Shapes: b batch, n images, h x w pixels, c channels, rows x columns of a feature map, d descriptor width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, Int64
from PIL import Image
from torch import Tensor, nn

from ssl_eval.feature_maps import OutputAndFeatureMap
from ssl_eval.image_files import (
    FileFeatures,
    ReaderConfig,
    blocks_of_features,
    features_of_files,
    images_in,
    rows_of_files,
)
from ssl_eval.retrieval.ranking import average_precision, ranks_among

ORIGINAL, STRONG = "original", "strong"
BLOCKS = (
    ORIGINAL,
    STRONG,
    *(f"jpegqual/{quality}" for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)),
    *(f"crops/{share}" for share in (10, 15, 20, 30, 40, 50, 60, 70, 80)),
)
NAMED_BY = 4
"""Length of the common prefix of the names of a strong copy and its original."""


@dataclass(frozen=True)
class Block:
    """A set of copies of one kind.

    Attributes:
        name: one of BLOCKS.
        files: the copies.
        copied: positions of the originals of each copy.
    """

    name: str
    files: Sequence[Path]
    copied: Sequence[Sequence[int]]


def read_copydays(folder: str | Path) -> list[Block]:
    """Read the existing blocks; the first is the originals, the second the strong copies.

    Raises:
        ValueError: one of these two is missing, a strong copy has no original, or a block has another length.
    """
    folder = Path(folder)
    for name in (ORIGINAL, STRONG):
        if not (folder / name).is_dir():
            raise ValueError(
                f"{folder / name} is missing; give the folder that contains original and strong of Copydays"
            )
    originals = images_in(folder / ORIGINAL)
    names = (name for name in BLOCKS if (folder / name).is_dir())
    return [_block(name, images_in(folder / name), originals) for name in names]


def _block(name: str, files: list[Path], originals: list[Path]) -> Block:
    if name == STRONG:
        copied = [_originals_of(path, originals) for path in files]
    elif len(files) == len(originals):
        copied = [[row] for row in range(len(originals))]
    else:
        raise ValueError(f"expected {len(originals)} images, one per original, in {files[0].parent}, got {len(files)}")
    return Block(name, files, copied)


def _originals_of(copy: Path, originals: list[Path]) -> list[int]:
    rows = [row for row, path in enumerate(originals) if path.name[:NAMED_BY] == copy.name[:NAMED_BY]]
    if not rows:
        raise ValueError(
            f"expected an original of {copy} in {originals[0].parent} that starts with {copy.name[:NAMED_BY]}, got none"
        )
    return rows


def evaluate_copydays(
    backbone: nn.Module,
    blocks: Sequence[Block],
    preparing: ReaderConfig,
    *,
    size: int = 320,
    distractors: Sequence[Path] = (),
    whitening: Sequence[Path] = (),
) -> dict[str, float]:
    """Compute the mean average precision of each block, in percent.

    Args:
        backbone: a vision transformer or a ResNet.
        blocks: see `read_copydays`.
        preparing: reader options.
        size: images are resized to size x size pixels.
        distractors: further database images; their features are not kept in memory.
        whitening: other images for the whitening of descriptors; none for no whitening.

    Raises:
        ValueError: `on_unreadable` raised, or the backbone has no feature map.
    """
    network, fit = CopyDescriptor(backbone), _Square(size)
    features = {block.name: features_of_files(network, block.files, fit, preparing) for block in blocks}
    adapt: Whitening | nn.Identity = nn.Identity()
    if whitening:
        adapt = Whitening.fit(features_of_files(network, whitening, fit, preparing).features)
    further = (adapt(each) for each in blocks_of_features(network, distractors, fit, preparing))
    originals = rows_of_files(features[ORIGINAL].places, len(blocks[0].files))
    kept = [_with_originals(block, features[block.name], originals) for block in blocks]
    precision = copy_precision(
        adapt(torch.cat([features for features, _ in kept])),
        adapt(features[ORIGINAL].features),
        [rows for _, copied in kept for rows in copied],
        distractors=further,
        device=preparing.device,
    )
    parts = torch.tensor(precision, dtype=torch.float64).split([len(copied) for _, copied in kept])
    named = zip(blocks, parts, strict=True)
    return {block.name: 100 * float(part.mean()) for block, part in named if len(part)}


def _with_originals(
    block: Block, extracted: FileFeatures, originals: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "m d"], list[Int64[Tensor, " _"]]]:
    """Return the features of copies with a readable original, and the rows of their originals."""
    copied = [originals[torch.tensor(block.copied[place])] for place in extracted.places.tolist()]
    rows = [each[each >= 0] for each in copied]
    having = torch.tensor([len(each) > 0 for each in rows])
    return extracted.features[having], [each for each in rows if len(each)]


@dataclass(frozen=True)
class _Square:
    size: int

    def __call__(self, place: int, image: Image.Image) -> Image.Image:
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC)


POWER = 4
"""Power of the generalized mean, https://arxiv.org/abs/1711.02512; this and the next three: official script."""
FLOOR = 1e-6
"""Features are clamped to this minimum before taking the power."""
NEAREST = 20
"""Number of nearest database images per query; more distant copies count as not found."""
SMALLEST = 1e-5
"""Variances are clamped to this fraction of the largest variance before whitening."""


class CopyDescriptor(nn.Module):
    """Concatenate a network's output and the generalized mean (GeM) of its feature map."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.network = OutputAndFeatureMap(backbone)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return one vector per image."""
        output, maps = self.network(images)
        return torch.cat([output, generalized_mean(maps)], dim=1)


def generalized_mean(maps: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b c"]:
    """Compute generalized mean pooling with power 4, of values clamped to be positive."""
    return maps.clamp(min=FLOOR).pow(POWER).mean(dim=(2, 3)).pow(1 / POWER)


@dataclass(frozen=True, eq=False)
class Whitening:
    """Whitening (x - mean) W^T."""

    mean: Float[Tensor, " d"]
    directions: Float[Tensor, "d d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> "Whitening":
        """Fit the inverse square root of the second moments, which are not centered, as in the official script."""
        exact = features.double()
        moments = exact.T @ exact / len(exact)
        variances, vectors = torch.linalg.eigh(moments)
        variances = variances.clamp(min=SMALLEST * float(variances.max()))
        directions = vectors.T / variances.sqrt()[:, None]
        return cls(exact.mean(dim=0).to(features.dtype), directions.to(features.dtype))

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the whitened features."""
        return (features - self.mean) @ self.directions.T


def copy_precision(
    queries: Float[Tensor, "n d"],
    originals: Float[Tensor, "_ d"],
    copied: Sequence[Int[Tensor, " _"]],
    *,
    distractors: Iterable[Float[Tensor, "_ d"]] = (),
    device: str | torch.device | None = None,
) -> list[float]:
    """Compute the average precision of each query, from 0 to 1, among its NEAREST images.

    Args:
        queries: descriptors of the queries.
        originals: descriptors of the database.
        copied: database rows of the originals of each query, at least one.
        distractors: descriptors of further database images, in blocks.
        device: device of the computation.
    """
    ranks = ranks_among(queries, originals, copied, distractors=distractors, device=device)
    return [average_precision(each[each < NEAREST], len(each)) for each in ranks]
