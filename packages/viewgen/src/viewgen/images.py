"""Find images under a folder, and read any of them as RGB.

Shapes: H, W are the image's height and width in pixels.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
TWO_BYTES = 65535 / 255  # a 16-bit level per 8-bit level


class UnreadableImage(ValueError):
    """The file is missing, broken, or not an image."""


def list_images(root: str | os.PathLike[str]) -> list[str]:
    """The sorted keys (POSIX paths relative to ``root``) of all images under it.

    Links to files and folders are followed; a link that leads back to a folder above it is not. Hidden entries are
    left out. Files are not opened.

    Raises:
        ValueError: if ``root`` is not a folder or has no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that holds the images")
    keys = sorted(_walk(root, "", frozenset()))
    if not keys:
        raise ValueError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) was found under {root}")
    return keys


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {identity})
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 (a million names)
                yield prefix + entry.name


def key_path(root: Path, key: str) -> Path:
    """The file of ``key`` under ``root``.

    Raises:
        ValueError: if the key is empty, absolute or climbs with ``..``, and so could leave ``root``.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\0" in key:
        raise ValueError(f"the key {key!r} is refused: a key is a path inside its folder, without '..'")
    return root / key


def read_image(path: str | os.PathLike[str], size: int | None = None) -> UInt8[Tensor, "3 H W"]:
    """Read an image upright as RGB, transparent parts over white, 16-bit levels scaled to 8 bits.

    Args:
        path: the file.
        size: if given, cut the largest central square and resize it (bicubic, antialiased) to size x size pixels.

    Raises:
        UnreadableImage: naming the file and what is wrong with it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            rgb = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's decoders raise many unrelated types on broken files
        raise UnreadableImage(f"cannot read the image {path}: {error or type(error).__name__}") from error
    if size is not None and rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_levels(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _levels(values: np.ndarray, mode: str) -> np.ndarray:
    """8-bit levels of a 16-bit image, or of a float image in [0, 1] or [0, 255]."""
    if mode == "F":
        scale = 255.0 if values.max() <= 1 else 1.0
        return (np.nan_to_num(values) * scale).round().clip(0, 255).astype(np.uint8)
    return (values / TWO_BYTES).round().clip(0, 255).astype(np.uint8)
