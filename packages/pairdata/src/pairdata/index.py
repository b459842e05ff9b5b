"""Every image below a folder: its key, its path, its class; a million images in tens of megabytes."""

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pairdata.packed import PackedStrings

IMAGE_SUFFIXES = frozenset(
    [".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The images of a data set, sorted by key (the POSIX path relative to the root).

    Attributes:
        root: the data set's folder.
        keys: the keys, sorted by their bytes.
        labels: int64 [N], the position in `classes` of each image's first-level folder; -1 directly in the root.
        classes: the names of the first-level folders that hold images, sorted.
    """

    root: Path
    keys: PackedStrings
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        """The key of image i."""
        return self.keys[i]

    def path(self, i: int) -> Path:
        """The file of image i."""
        return self.root / self.keys[i]

    def position(self, key: str) -> int:
        """Where the image with this key stands.

        Raises:
            KeyError: no such image.
        """
        found = self.keys.find(key)
        if found < 0:
            raise KeyError(f"no image {key!r} under {self.root}")
        return found

    def take(self, positions: np.ndarray) -> "ImageIndex":
        """The index of some of the images (rising positions); the classes stay as they are."""
        return ImageIndex(self.root, self.keys.take(positions), self.labels[positions], self.classes)


def index_images(root: str | Path, *, follow_symlinks: bool = True) -> ImageIndex:
    """Find every image below a folder, at any depth, in one streaming pass.

    Names that begin with a dot are left out. A linked folder that leads back to a folder it lies in is not entered.

    Args:
        root: the folder.
        follow_symlinks: whether linked folders and files count; a link that leads nowhere never does.

    Raises:
        ValueError: the folder is missing or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"no folder of images at {root}: give the path of an existing folder")
    folders: dict[str, int] = {}
    labels = array("q")

    def labelled() -> Iterator[str]:
        for key in _walk(root, "", follow_symlinks, ()):
            folder, slash, _ = key.partition("/")
            labels.append(folders.setdefault(folder, len(folders)) if slash else -1)
            yield key

    keys = PackedStrings.pack(labelled())
    if not len(keys):
        raise ValueError(f"no images under {root}: looked for {' '.join(sorted(IMAGE_SUFFIXES))}")
    classes = sorted(folders)
    rank = np.array([*(classes.index(folder) for folder in folders), -1])  # the last one serves label -1
    return ImageIndex(root, keys, rank[np.frombuffer(labels, np.int64)], tuple(classes))


def _walk(root: Path, prefix: str, follow: bool, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the keys below root/prefix, sorted by their bytes; `above` names the folders that enclose this one."""
    folder = root / prefix
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        found = [e for e in entries if not e.name.startswith(".") and (follow or not e.is_symlink())]
    # A folder sorts as "name/", so that keys come out in the order of whole paths.
    named = sorted((os.fsencode(e.name + "/" if e.is_dir() else e.name), e) for e in found)
    for _, entry in named:
        if entry.is_dir():
            yield from _walk(root, f"{prefix}{entry.name}/", follow, (*above, here))
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():  # noqa: PTH122
            yield prefix + entry.name
