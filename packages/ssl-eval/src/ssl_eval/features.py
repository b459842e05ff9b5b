"""Features of labeled images: extracted once from a frozen backbone, then cached, saved and evaluated.

Shapes: b batch, n images, d feature width.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genviews_core.backbones import backbone_hash as backbone_hash  # part of the public API
from genviews_core.distributed import all_gather
from genviews_core.tensor_files import save_tensors
from ssl_eval.distributed import raise_on_all_ranks

BROADCAST_ROWS = 65_536
"""Rows per broadcast, which bounds the device memory of a gather."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features and labels of a data set.

    Attributes:
        features: one row per image, [n, d].
        labels: classes, counted from 0.

    Raises:
        ValueError: no images, not one label per feature, a negative label, NaN or infinite features.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise ValueError(
                f"expected one label per image, got {len(self.features)} features and {len(self.labels)} labels"
            )
        if len(self.features) == 0:
            raise ValueError("expected one or more images from the loader, got none")
        if int(self.labels.min()) < 0:
            raise ValueError(f"expected labels of 0 or more, got {int(self.labels.min())}")
        if not torch.stack(self.features.aminmax()).isfinite().all():
            raise ValueError(
                "expected finite features, got NaN or infinity; check the backbone's weights and its precision"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def num_classes(self) -> int:
        """Largest label plus one."""
        return int(self.labels.max()) + 1

    def to(self, device: str | torch.device) -> "Features":
        """Return the features on a device."""
        return Features(self.features.to(device), self.labels.to(device))

    def select(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"] | slice) -> "Features":
        """Return the features of some images."""
        return Features(self.features[rows], self.labels[rows])

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically.

        Raises:
            ValueError: the file cannot be written.
        """
        save_tensors(path, {"features": self.features, "labels": self.labels})

    @classmethod
    def load(cls, path: str | Path) -> "Features":
        """Load a file written by `save`.

        Raises:
            ValueError: the file is missing or invalid.
        """
        try:
            tensors = load_file(path)
            return cls(tensors["features"], tensors["labels"])
        except FileNotFoundError:
            raise ValueError(
                f"expected features at {path}, got no file; give the path that Features.save wrote"
            ) from None
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} does not contain saved Features ({error})") from None


def check_comparable(train: Features, test: Features) -> None:
    """Raise ValueError if widths differ, or a test class has no training image."""
    if train.features.shape[1] != test.features.shape[1]:
        widths = f"{train.features.shape[1]} wide in training and {test.features.shape[1]} in test"
        raise ValueError(f"expected features of one width, got {widths}; extract both with one backbone")
    seen = set(train.labels.unique().tolist())
    unseen = [label for label in test.labels.unique().tolist() if label not in seen]
    if unseen:
        raise ValueError(f"expected training images of every test class, got none of class {unseen[0]}")


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    loader: Iterable[Sequence[Tensor]],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
) -> Features:
    """Extract features with a backbone in evaluation mode.

    The features are on the CPU, in the loader's order; if the loader also yields indices, they are sorted by index, and
    duplicates (padding of distributed samplers) are removed. The modes of all submodules are restored.

    Args:
        backbone: maps images [b, 3, h, w] to features [b, d].
        loader: yields (images, labels) or (images, labels, index), with preprocessed images.
        device: device that the backbone is moved to.
        dtype: dtype of the returned features; torch.float16 halves the memory.
        amp: dtype of autocast; None for none.
        group: processes that share the images; each gets all features. None for a single process.

    Raises:
        ValueError: features are not [b, d], not finite or empty, or indices are missing with a group; raised on every
            process.
    """
    backbone.to(device)
    features, labels, indices = [], [], []
    precision = torch.autocast(torch.device(device).type, dtype=amp, enabled=amp is not None)
    with raise_on_all_ranks(group), evaluating(backbone), precision:
        for images, targets, *index in loader:
            output = backbone(images.to(device, non_blocking=True))
            if output.ndim != 2:
                raise ValueError(
                    f"expected features [batch, width] from the backbone, got {list(output.shape)}; pool them"
                )
            features.append(output.to("cpu", dtype))
            labels.append(targets.cpu())
            indices.extend(index)
        if not features:
            raise ValueError("expected one or more images from the loader, got none")
        if group is not None and len(indices) != len(features):
            raise ValueError("expected (images, labels, index) from the loader with several processes, got two values")
    columns = [torch.cat(features), torch.cat(labels).long()]
    if indices:
        columns.append(torch.cat(indices).cpu().long())
    if group is not None:
        columns = [_gather_rows(column, device, group) for column in columns]
    if indices:
        order = _first_of_each(columns[2])
        columns = [column[order] for column in columns]
    return Features(columns[0], columns[1])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore the mode of every submodule afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _first_of_each(index: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Return the position of the first occurrence of each value, sorted by value."""
    ordered, positions = index.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return positions[first]


def _gather_rows(rows: Tensor, device: str | torch.device, group: dist.ProcessGroup) -> Tensor:
    """Gather the rows of all processes in the order of their ranks; the numbers of rows may differ."""
    counts = all_gather(torch.tensor(len(rows), device=device), group).tolist()
    gathered = rows.new_empty(sum(counts), *rows.shape[1:])
    blocks = gathered.split(counts)
    blocks[group.rank()].copy_(rows)
    for rank, block in enumerate(blocks):
        for part in block.split(BROADCAST_ROWS):
            travelling = part.to(device)
            dist.broadcast(travelling, group=group, group_src=rank)
            part.copy_(travelling)
    return gathered
