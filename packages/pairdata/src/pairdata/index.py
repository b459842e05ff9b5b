"""Every image below a folder: its key, its path, its class; a million images in tens of megabytes."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genviews_core.images import SUFFIXES
from genviews_core.listing import iter_images
from pairdata.packed import PackedStrings


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
        follow_symlinks: whether to include linked folders and files.

    Raises:
        ValueError: the folder is missing or holds no image, or a folder in it cannot be read.
    """
    root = Path(root)
    folders: dict[str, int] = {}
    labels = array("q")

    def labelled() -> Iterator[str]:
        for key in iter_images(root, follow_links=follow_symlinks):
            folder, slash, _ = key.partition("/")
            labels.append(folders.setdefault(folder, len(folders)) if slash else -1)
            yield key

    keys = PackedStrings.pack(labelled())
    if not len(keys):
        raise ValueError(f"no images under {root}: looked for {' '.join(sorted(SUFFIXES))}")
    classes = sorted(folders)
    rank = np.array([*(classes.index(folder) for folder in folders), -1])  # the last one serves label -1
    return ImageIndex(root, keys, rank[np.frombuffer(labels, np.int64)], tuple(classes))
