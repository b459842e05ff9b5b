"""Images with object masks in ECSSD's layout.

Shapes: n images, s height and width in pixels.
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
    """Return the folder, or the folder to which a tar was extracted."""
    if data.is_dir():
        return data
    try:
        with tarfile.open(data) as archive:
            archive.extractall(scratch, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"cannot read {data} ({error}); give a folder or a tar with images/ and masks/") from error
    return scratch


def find_pairs(folder: Path) -> list[Pair]:
    """Return the paths of images and masks with the same name.

    Raises:
        ValueError: there are none.
    """
    paths = [folder / key for key in iter_images(folder)]
    masks = {path.stem: path for path in paths if path.parent.name == "masks" and path.suffix == ".png"}
    images = {path.stem: path for path in paths if path.parent.name == "images" and path.suffix == ".jpg"}
    pairs = [(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())]
    if not pairs:
        raise ValueError(f"expected images/NAME.jpg with masks/NAME.png in {folder}, got none; give another folder")
    return pairs


def read_pairs(pairs: list[Pair], size: int) -> tuple[UInt8[Tensor, "n 3 s s"], Bool[Tensor, "n s s"]]:
    """Read central squares; images whose square has no object or no background are skipped."""
    images = torch.stack([read_image(image, size) for image, _ in pairs])
    masks = torch.stack([read_image(mask, size)[0] > 127 for _, mask in pairs])
    counts = masks.flatten(1).sum(dim=1)
    usable = (counts > 0) & (counts < size * size)
    return images[usable], masks[usable]
