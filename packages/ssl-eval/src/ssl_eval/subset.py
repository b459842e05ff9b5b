"""Subsets of labeled training images: from a published list, or drawn class-balanced from a seed.

Shapes: n images, m chosen.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ssl_eval.rng import seeded_generator
from ssl_eval.text import read_names


def listed_subset(path: str | Path, keys: Sequence[str]) -> Int[Tensor, " m"]:
    """Return the rows of the images in a list, in the data set's order.

    A line is an image's key ("n01440764/n01440764_10026.JPEG") or its file name, as SimCLR's 1percent.txt and
    10percent.txt have it (https://github.com/google-research/simclr, imagenet_subsets); empty lines are ignored.

    Args:
        path: a text file with one name per line.
        keys: keys of all training images.

    Raises:
        ValueError: the list is missing, empty, or has duplicate or unknown names.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a list of images at {path}, got no file")
    names = read_names(path)
    if not names:
        raise ValueError(f"expected names of images in {path}, got none")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"expected each image once in {path}, got {name} {count} times")
    rows = {key: row for row, key in enumerate(keys)}
    by_name: dict[str, list[int]] = {}
    for key, row in rows.items():
        by_name.setdefault(key.rpartition("/")[2], []).append(row)
    rows_of = {name: [rows[name]] if name in rows else by_name.get(name, []) for name in names}
    missing = [name for name, matches in rows_of.items() if not matches]
    if missing:
        raise ValueError(f"{len(missing)} of {len(names)} images listed in {path} are missing, first {missing[0]}")
    unclear = next((name for name, matches in rows_of.items() if len(matches) > 1), None)
    if unclear is not None:
        raise ValueError(f"ambiguous name {unclear} in {path}, several folders have one; write <class>/{unclear}")
    return torch.tensor(sorted(matches[0] for matches in rows_of.values()))


def balanced_subset(
    labels: Int[Tensor, " n"], percent: int | float, *, seed: int, num_classes: int | None = None
) -> Int[Tensor, " m"]:
    """Draw equally many images of every class; return ascending rows.

    Args:
        labels: labels of all training images.
        percent: percentage of the images, in (0, 100]; rounded to at least one image per class.
        seed: seed of the draw.
        num_classes: number of classes; None for the largest label plus one.

    Raises:
        ValueError: percent is out of range, or a class has too few images.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"expected percent above 0 and up to 100, got {percent}")
    counts = labels.bincount(minlength=num_classes or 0)
    each = max(1, round(len(labels) * percent / 100 / len(counts)))
    fewest = int(counts.min())
    if fewest < each:
        raise ValueError(f"expected {each} or more images of every class, got {fewest} of class {int(counts.argmin())}")
    shuffled = torch.randperm(len(labels), generator=seeded_generator(seed, "subset"))
    ordered = labels.cpu()[shuffled]
    chosen = [shuffled[ordered == label][:each] for label in range(len(counts))]
    return torch.cat(chosen).sort().values
