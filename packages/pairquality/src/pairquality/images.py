"""Images under a folder, each named by its key: its POSIX path relative to the folder.

Shapes: s pixels, the side of a square image.
"""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's others may run programs
MAX_PIXELS = 178_956_970  # 0.7 GB decoded; where Pillow refuses by default


class UnreadableImage(ValueError):
    """The file is missing, broken, too large or not an image, or its name is not UTF-8."""


def iter_images(root: str | os.PathLike[str]) -> Iterator[str]:
    """The keys of all images under a folder, sorted; holds the names of one folder per level at a time.

    Links are followed, but not back to a folder above. Hidden entries are left out. Files are not opened.

    Raises:
        ValueError: not a folder, or one inside cannot be listed.
    """
    if not Path(root).is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that holds the images.")
    yield from _walk(Path(root), "", ())


def _walk(root: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = (root / prefix).stat()
        names = sorted(_entries(root / prefix, prefix))
    except OSError as error:
        raise ValueError(f"Cannot list the folder {root / prefix}: {error.strerror}.") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    for name in names:
        if name.endswith("/"):
            yield from _walk(root, name, (*above, identity))
        else:
            yield name


def _entries(folder: Path, prefix: str) -> Iterator[str]:
    """Images, and folders with a slash at the end: so they sort as what they hold does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself: reading it as an image will say so
                is_folder = False
            if is_folder:
                yield f"{prefix}{entry.name}/"
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a million names)
                yield prefix + entry.name


def read_image(path: str | os.PathLike[str], size: int) -> UInt8[Tensor, "3 s s"]:
    """The largest central square of an image, upright, RGB, resized to size x size (bicubic, antialiased).

    The first of several frames; transparent parts over white; 16-bit levels scaled to 8 bits.

    Raises:
        UnreadableImage: naming the file and what is wrong with it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (opening a pipe would wait for its writer)
            raise ValueError("it is not a regular file")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has more than {MAX_PIXELS} pixels: scale it down first")
            image.load()
            square = ImageOps.fit(_rgb(_upright(image)), (size, size), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's decoders raise many unrelated types on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"cannot read the image {os.fspath(path)!r}: {reason}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says; as it is where the EXIF cannot be read, which is no reason to lose it."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's EXIF reader raises as many types as its decoders
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        scale = 255 if image.mode == "F" and values.max() <= 1 else 1 if image.mode == "F" else 255 / 65535
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


Read = tuple[str, Tensor | UnreadableImage]


def read_batches(
    root: str | os.PathLike[str], keys: Iterable[str], size: int, *, batch_size: int, workers: int
) -> Iterator[list[Read]]:
    """Batches of keys with their images, or why one cannot be read; threads read one batch ahead."""
    rest, ahead = iter(keys), deque[list[tuple[str, Future[Tensor | UnreadableImage]]]]()
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(rest, batch_size)):
            ahead.append([(key, pool.submit(_read, Path(root), key, size)) for key in chunk])
            if len(ahead) == 2:
                yield [(key, future.result()) for key, future in ahead.popleft()]
        for chunk in ahead:
            yield [(key, future.result()) for key, future in chunk]


def _read(root: Path, key: str, size: int) -> Tensor | UnreadableImage:
    try:
        if any("\ud800" <= letter <= "\udfff" for letter in key):
            raise UnreadableImage(f"the name {key!r} is not UTF-8: rename the file")
        return read_image(root / key, size)
    except UnreadableImage as error:
        return error
