"""Copydays: the official folders, read and measured.

    original/200000.jpg          157 photographs
    strong/200001.jpg            229 printed, scanned, painted over ...: the first four characters name the original
    jpegqual/3/200000.jpg        compressed, at 3, 5, 8, 10, 15, 20, 30, 50 and 75 percent of JPEG's quality
    crops/10/200000.jpg          with 10, 15, 20, 30, 40, 50, 60, 70 and 80 percent of their surface cut away

https://lear.inrialpes.fr/~jegou/data.php#copydays
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from ssl_eval.image_files import FileFeatures, Preparing, blocks_of_features, features_of_files, images_in, places_among
from ssl_eval.retrieval.copy_detection import CopyDescriptor, Whitening, copy_precision

ORIGINAL, STRONG = "original", "strong"
BLOCKS = (
    ORIGINAL,
    STRONG,
    *(f"jpegqual/{quality}" for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)),
    *(f"crops/{share}" for share in (10, 15, 20, 30, 40, 50, 60, 70, 80)),
)
NAMED_BY = 4
"""Characters that a strong copy's name shares with its original's."""


@dataclass(frozen=True)
class Block:
    """Copies of one kind.

    Attributes:
        name: one of BLOCKS.
        files: the copies.
        copied: rows of the originals for each.
    """

    name: str
    files: Sequence[Path]
    copied: Sequence[Sequence[int]]


def read_copydays(folder: str | Path) -> list[Block]:
    """The blocks that are there; the first is the originals, the second the strong copies.

    Raises:
        ValueError: one of these two is missing, a strong copy has no original, or a block is not as long.
    """
    folder = Path(folder)
    for name in (ORIGINAL, STRONG):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder / name} is missing: give the folder that holds original and strong of Copydays")
    originals = images_in(folder / ORIGINAL)
    names = (name for name in BLOCKS if (folder / name).is_dir())
    return [_block(name, images_in(folder / name), originals) for name in names]


def _block(name: str, files: list[Path], originals: list[Path]) -> Block:
    if name == STRONG:
        copied = [_originals_of(path, originals) for path in files]
    elif len(files) == len(originals):
        copied = [[row] for row in range(len(originals))]
    else:
        counts = f"{len(files)} images: one is needed for each of {len(originals)} originals"
        raise ValueError(f"{files[0].parent} holds {counts}")
    return Block(name, files, copied)


def _originals_of(copy: Path, originals: list[Path]) -> list[int]:
    rows = [row for row, path in enumerate(originals) if path.name[:NAMED_BY] == copy.name[:NAMED_BY]]
    if not rows:
        raise ValueError(f"{copy} has no original: none of {originals[0].parent} begins with {copy.name[:NAMED_BY]}")
    return rows


def evaluate_copydays(
    backbone: nn.Module,
    blocks: Sequence[Block],
    preparing: Preparing,
    *,
    size: int = 320,
    distractors: Sequence[Path] = (),
    whitening: Sequence[Path] = (),
) -> dict[str, float]:
    """Mean average precision of each block, in percent.

    Args:
        backbone: a vision transformer or a ResNet.
        blocks: see `read_copydays`.
        preparing: how images are read.
        size: they are resized to squares of this side, pixels.
        distractors: images among which the originals are to be found; their features are not kept.
        whitening: other images, which descriptors are whitened by; where there are none they stay as they are.

    Raises:
        ValueError: `on_unreadable` raised, or the backbone has no feature map.
    """
    network, fit = CopyDescriptor(backbone), _Square(size)
    found = {block.name: features_of_files(network, block.files, fit, preparing) for block in blocks}
    adapt: Whitening | nn.Identity = nn.Identity()
    if whitening:
        adapt = Whitening.fit(features_of_files(network, whitening, fit, preparing).features)
    further = (adapt(each) for each in blocks_of_features(network, distractors, fit, preparing))
    originals = places_among(found[ORIGINAL].places, len(blocks[0].files))
    kept = [_with_originals(block, found[block.name], originals) for block in blocks]
    precision = copy_precision(
        adapt(torch.cat([features for features, _ in kept])),
        adapt(found[ORIGINAL].features),
        [rows for _, copied in kept for rows in copied],
        distractors=further,
        device=preparing.device,
    )
    parts = torch.tensor(precision, dtype=torch.float64).split([len(copied) for _, copied in kept])
    named = zip(blocks, parts, strict=True)
    return {block.name: 100 * float(part.mean()) for block, part in named if len(part)}


def _with_originals(
    block: Block, found: FileFeatures, originals: Int64[Tensor, " n"]
) -> tuple[Float[Tensor, "m d"], list[Int64[Tensor, " _"]]]:
    """Return the features of copies with a readable original, and the rows of their originals."""
    copied = [originals[torch.tensor(block.copied[place])] for place in found.places.tolist()]
    rows = [each[each >= 0] for each in copied]
    having = torch.tensor([len(each) > 0 for each in rows])
    return found.features[having], [each for each in rows if len(each)]


@dataclass(frozen=True)
class _Square:
    size: int

    def __call__(self, place: int, image: Image.Image) -> Image.Image:
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC)
