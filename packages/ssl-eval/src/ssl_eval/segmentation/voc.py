"""PASCAL VOC 2012's layout of images with a class for every pixel; any data in that layout.

VOC2012/{JPEGImages/<name>.jpg, SegmentationClass/<name>.png, ImageSets/Segmentation/<split>.txt}:
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, section 3. A mask's values are the classes, 0 for the
background; 255 is left out.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genviews_core.images import UnreadableImage, read_label_map
from ssl_eval.image_files import read_rgb, too_thin
from ssl_eval.segmentation.mean_iou import IGNORE_INDEX
from ssl_eval.text import read_names

NUM_CLASSES = 21
"""Twenty kinds of objects and the background."""


@dataclass(frozen=True, kw_only=True)
class SegmentationDataset:
    """The images and masks of one split.

    Attributes:
        root: the folder VOC2012.
        names: names in the split's list.
        num_classes: number of classes; larger values up to 254 are invalid.
    """

    root: Path
    names: tuple[str, ...]
    num_classes: int = NUM_CLASSES

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> tuple[Image.Image, np.ndarray]:
        """Read an image and its mask, uint8 [height, width].

        Raises:
            ValueError: a file cannot be read, or the mask has another size or invalid classes.
        """
        path, mask_path = self._paths(self.names[row])
        image, mask = read_rgb(path), np.array(read_label_map(mask_path))
        if (why := too_thin(image.width, image.height)) is not None:
            raise ValueError(f"{path}: {why}")
        if mask.shape != (image.height, image.width):
            sizes = f"{mask.shape[1]} x {mask.shape[0]} px, its image {image.width} x {image.height}"
            raise ValueError(f"expected masks of their images' size, got {mask_path} with {sizes}")
        self._check_classes(mask, mask_path)
        return image, mask

    def check_masks(self) -> None:
        """Check the masks before training.

        Raises:
            ValueError: a mask has invalid classes, or no mask has a pixel with a class. Unreadable files are ignored
                here, and reported when they are used.
        """
        some = False
        for name in self.names:
            _, path = self._paths(name)
            with suppress(UnreadableImage):
                mask = np.array(read_label_map(path))
                self._check_classes(mask, path)
                some = some or bool((mask != IGNORE_INDEX).any())
        if not some:
            raise ValueError(
                f"expected pixels with a class in the masks of {self.root}, got {IGNORE_INDEX} (void) alone"
            )

    def _check_classes(self, mask: np.ndarray, path: Path) -> None:
        highest = int(mask.max(where=mask != IGNORE_INDEX, initial=0))
        if highest >= self.num_classes:
            raise ValueError(
                f"expected classes 0 to {self.num_classes - 1} in {path}, got {highest}; "
                f"correct it, or set the number of classes to {highest + 1}"
            )

    def digest(self) -> str:
        """Return a hash of the names and of the masks' sizes in bytes."""
        listing = "".join(f"{name} {self._paths(name)[1].stat().st_size}\n" for name in self.names)
        return hashlib.blake2b(listing.encode(), digest_size=6).hexdigest()

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self.root / "JPEGImages" / f"{name}.jpg", self.root / "SegmentationClass" / f"{name}.png"


def load_split(root: Path, split: str, *, num_classes: int = NUM_CLASSES) -> SegmentationDataset:
    """Load the images listed for a split.

    Args:
        root: the folder VOC2012, VOCdevkit, or its parent.
        split: a list of ImageSets/Segmentation: train, val or trainval.
        num_classes: number of classes including the background.

    Raises:
        ValueError: the folder, the list, images or masks are missing, or the list is empty.
    """
    places = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    place = next((place for place in places if (place / "ImageSets" / "Segmentation").is_dir()), None)
    if place is None:
        raise ValueError(f"expected VOC2012's layout, got {root} without ImageSets/Segmentation, there or in VOCdevkit")
    listed = place / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise ValueError(f"expected a list of images at {listed}, got no file")
    names = tuple(read_names(listed))
    if not names:
        raise ValueError(f"expected names of images in {listed}, got none")
    dataset = SegmentationDataset(root=place, names=names, num_classes=num_classes)
    missing = [path for name in names for path in dataset._paths(name) if not path.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} files listed in {listed} are missing, first {missing[0]}")
    return dataset
