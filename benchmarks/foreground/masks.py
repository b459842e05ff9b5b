"""Images with masks of their objects, as ECSSD lays them out.

Shapes: n images, s pixels of a side.
"""

import tarfile
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from genviews_core.images import read_image
from genviews_core.listing import iter_images

Pair = tuple[Path, Path]


def unpacked(data: Path, scratch: Path) -> Path:
    """The folder itself, or a tar's content."""
    if data.is_dir():
        return data
    try:
        with tarfile.open(data) as archive:
            archive.extractall(scratch, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"Cannot read {data} ({error}): give a folder or a tar with images/ and masks/.") from error
    return scratch


def find_pairs(folder: Path) -> list[Pair]:
    """Images and masks of the same name.

    Raises:
        ValueError: there are none.
    """
    paths = [folder / key for key in iter_images(folder)]
    masks = {path.stem: path for path in paths if path.parent.name == "masks" and path.suffix == ".png"}
    images = {path.stem: path for path in paths if path.parent.name == "images" and path.suffix == ".jpg"}
    pairs = [(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())]
    if not pairs:
        raise ValueError(f"{folder} holds no images/<name>.jpg with masks/<name>.png.")
    return pairs


def read_pairs(pairs: list[Pair], size: int) -> tuple[UInt8[Tensor, "n 3 s s"], Bool[Tensor, "n s s"]]:
    """Central squares; images whose square holds no object, or nothing else, are left out."""
    images = torch.stack([read_image(image, size) for image, _ in pairs])
    masks = torch.stack([read_image(mask, size)[0] > 127 for _, mask in pairs])
    counts = masks.flatten(1).sum(dim=1)
    usable = (counts > 0) & (counts < size * size)
    return images[usable], masks[usable]
