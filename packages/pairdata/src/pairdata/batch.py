"""What the loaders yield: the pairs of a batch as 8-bit squares on the device, and where they come from.

Legend: B images, K views of each, S side of the squares.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

_Batch = TypeVar("_Batch", bound="_Tensors")


class _Tensors:
    """A dataclass of tensors that moves as one."""

    def to(self: _Batch, device: str | torch.device) -> _Batch:
        """The same on a device; from pinned memory the copy runs alongside."""
        return self._each(
            lambda part: part.to(device) if isinstance(part, _Tensors) else part.to(device, non_blocking=True)
        )

    def pin_memory(self: _Batch) -> _Batch:
        """The same in page-locked memory."""
        return self._each(lambda part: part.pin_memory())

    def _each(self: _Batch, move: Callable[[Any], Any]) -> _Batch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: None if part is None else move(part) for name, part in parts.items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class MixedViews(_Tensors):
    """One interpolated view of each image, and the other image it was made from.

    Attributes:
        interpolated: the interpolated view; the image itself where there is none.
        partner: the partner's real image; the image itself where there is none.
        alpha: the weight of the batch's own image, 1 - alpha being the partner's; 1 where there is no view.
        exists: whether there is a view.
        sizes: original (height, width) of the interpolated view and of the partner.
    """

    interpolated: UInt8[Tensor, "B 3 S S"]
    partner: UInt8[Tensor, "B 3 S S"]
    alpha: Float[Tensor, " B"]
    exists: Bool[Tensor, " B"]
    sizes: Int64[Tensor, "B 2 2"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch(_Tensors):
    """Images with their synthetic views.

    Attributes:
        real: the images.
        views: K views of each; the image itself where one is missing.
        view_exists: whether each view is really there.
        index: position of each image in the loader's index.
        label: class of each image, -1 for none.
        sizes: original (height, width) of the image and of each view.
        mixed: interpolated views, where the loader was given any.
    """

    real: UInt8[Tensor, "B 3 S S"]
    views: UInt8[Tensor, "B K 3 S S"]
    view_exists: Bool[Tensor, "B K"]
    index: Int64[Tensor, " B"]
    label: Int64[Tensor, " B"]
    sizes: Int64[Tensor, "B 1+K 2"]
    mixed: MixedViews | None = None

    def __len__(self) -> int:
        return len(self.index)
