"""Index of the images below a folder: key, path and class; a million images take tens of megabytes."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genviews_core.images import SUFFIXES
from genviews_core.listing import iter_images
from pairdata.string_array import StringArray


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The images of a data set, sorted by key (the POSIX path relative to the root).

    Attributes:
        root: the data set's folder.
        keys: the keys, sorted by their bytes.
        labels: int64 [N], the position in `classes` of each image's first-level folder; -1 directly in the root.
        classes: names of the first-level folders with images, sorted.
    """

    root: Path
    keys: StringArray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, i: int) -> str:
        """Return the key of image i."""
        return self.keys[i]

    def path(self, i: int) -> Path:
        """Return the file of image i."""
        return self.root / self.keys[i]

    def position(self, key: str) -> int:
        """Return the position of the image with this key.

        Raises:
            KeyError: there is no such image.
        """
        position = self.keys.find(key)
        if position < 0:
            raise KeyError(f"no image {key!r} under {self.root}")
        return position

    def take(self, positions: np.ndarray) -> "ImageIndex":
        """Return the index of some images, at ascending positions, with all classes."""
        return ImageIndex(self.root, self.keys.take(positions), self.labels[positions], self.classes)


def index_images(root: str | Path, *, follow_symlinks: bool = True) -> ImageIndex:
    """Index the images below a folder, at any depth, in one pass.

    Names that begin with a dot are skipped. Links to a parent folder are not followed.

    Args:
        root: the folder.
        follow_symlinks: whether to include linked folders and files.

    Raises:
        ValueError: the folder is missing or contains no image, or a folder in it cannot be read.
    """
    root = Path(root)
    folders: dict[str, int] = {}
    labels = array("q")

    def labeled() -> Iterator[str]:
        for key in iter_images(root, follow_links=follow_symlinks):
            folder, slash, _ = key.partition("/")
            labels.append(folders.setdefault(folder, len(folders)) if slash else -1)
            yield key

    keys = StringArray.pack(labeled())
    if not len(keys):
        raise ValueError(f"expected images ({' '.join(sorted(SUFFIXES))}) below {root}, got none")
    classes = sorted(folders)
    rank = np.array([*(classes.index(folder) for folder in folders), -1])  # the last one serves label -1
    return ImageIndex(root, keys, rank[np.frombuffer(labels, np.int64)], tuple(classes))
