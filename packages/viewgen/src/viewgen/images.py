"""Find images under a folder, and read any of them as RGB.

Shapes: H, W are the image's height and width in pixels.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from genviews_core.keys import leaves_folder

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # whatever the suffix; Pillow's EPS would run a program
MAX_PIXELS = 178_956_970  # decoded whole: where Pillow refuses by default; 0.7 GB as Pillow holds it
TOO_LARGE = f"it has more than {MAX_PIXELS} pixels: scale it down first"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what undoes an EXIF orientation
TWO_BYTES = 65535 / 255  # a 16-bit level per 8-bit level


class UnreadableImage(ValueError):
    """The file is missing, broken, too large or not an image, or its key is refused."""


def list_images(root: str | os.PathLike[str]) -> list[str]:
    """The sorted keys (POSIX paths relative to ``root``) of all images under it.

    Links to files and folders are followed; a link that leads back to a folder above it is not. Hidden entries are
    left out. Files are not opened.

    Raises:
        ValueError: if ``root`` is not a folder or has no image, or if a folder in it cannot be read.
    """
    keys = list(iter_images(root))
    if not keys:
        raise ValueError(f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) was found under {root}")
    return keys


def iter_images(root: str | os.PathLike[str], on_error: Callable[[str, OSError], None] | None = None) -> Iterator[str]:
    """``list_images`` one by one, in the same order, holding the names of one folder per level at a time.

    Args:
        root: the folder.
        on_error: called with "a/b/" and the reason where the folder a/b cannot be read; without it, that is an error.

    Raises:
        ValueError: if ``root`` is not a folder, or a folder in it cannot be read and there is no ``on_error``.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the folder that holds the images")
    pending, above = [""], list[tuple[str, tuple[int, int]]]()  # keys and folders yet to come, the next one last
    while pending:
        name = pending.pop()
        if name and not name.endswith("/"):
            yield name
            continue
        while above and not name.startswith(above[-1][0]):
            above.pop()
        try:
            status = (root / name).stat()
            identity = (status.st_dev, status.st_ino)
            if identity not in (folder for _, folder in above):
                pending += sorted(_entries(root / name, name), reverse=True)
                above.append((name, identity))
        except OSError as error:
            if on_error is None:
                raise ValueError(f"cannot list the folder {root / name}: {error.strerror}") from error
            on_error(name, error)


def _entries(folder: Path, prefix: str) -> Iterator[str]:
    """The images of a folder, and its folders with a slash at the end: so they sort as what they hold does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield f"{prefix}{entry.name}/"
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 (a million names)
                yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a closed folder: reading it as an image will say so
        return False


def key_path(root: Path, key: str) -> Path:
    """The file of ``key`` under ``root``.

    Raises:
        UnreadableImage: if the key is empty, absolute or climbs with ``..``, and so could leave ``root``; or if it is
            not UTF-8, and so fits no manifest.
    """
    if leaves_folder(key) or not PurePosixPath(key).parts:
        raise UnreadableImage(f"the key {key!r} is refused: a key is a path inside its folder, without '..'")
    if any("\ud800" <= letter <= "\udfff" for letter in key):
        raise UnreadableImage(f"the key {key!r} is refused: rename the file, its name is not UTF-8")
    return root / key


def read_image(path: str | os.PathLike[str], size: int | None = None) -> UInt8[Tensor, "3 H W"]:
    """Read an image upright as RGB, the first of several, transparent parts over white, 16-bit levels scaled to 8 bits.

    An image of more than ``MAX_PIXELS`` is refused before it is decoded, but a JPEG that is to be made small: that is
    decoded at an eighth of its sides, or a quarter or a half, whichever is not yet below ``size``. Pillow's own limit,
    a global of that module, is left as it is.

    Args:
        path: the file.
        size: if given, cut the largest central square and resize it (bicubic, antialiased) to size x size pixels.

    Raises:
        UnreadableImage: naming the file and what is wrong with it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (opening a pipe would wait for its writer)
            raise ValueError("it is not a regular file")
        with _open(path) as image:
            _refuse_or_reduce(image, size)
            image.load()
            rgb = _to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders raise many unrelated types on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"cannot read the image {os.fspath(path)!r}: {reason}") from error
    if size is not None and rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def _open(path: str | os.PathLike[str]) -> Image.Image:
    """The opened, not yet decoded image; a JPEG whatever its size."""
    try:
        return Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        try:
            return JpegImageFile(path)  # Pillow checks the size in Image.open alone
        except SyntaxError:
            raise ValueError(TOO_LARGE) from None


def _refuse_or_reduce(image: Image.Image, size: int | None) -> None:
    """Have a large baseline JPEG decoded at a fraction; refuse what is still too large."""
    if size is not None and image.width * image.height > MAX_PIXELS and "progressive" not in image.info:
        image.draft(None, (size, size))  # of a progressive JPEG all coefficients would be held
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(TOO_LARGE)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says; as it is if the EXIF cannot be read, which is no reason to lose it."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises as many types as its decoders
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_levels(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _levels(values: np.ndarray, mode: str) -> np.ndarray:
    """8-bit levels of a 16-bit image, or of a float image in [0, 1] or [0, 255]."""
    if mode == "F":
        scale = 255.0 if values.max() <= 1 else 1.0
        return (np.nan_to_num(values) * scale).round().clip(0, 255).astype(np.uint8)
    return (values / TWO_BYTES).round().clip(0, 255).astype(np.uint8)
