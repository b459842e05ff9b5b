"""Batches of images and their synthetic views, and copies between devices.

Legend: B images, K views of each, S x S pixels, C channels (3 for RGB).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device; on a GPU without synchronizing with the stream.

    A copy from pageable memory waits for the stream, so that the GPU is idle while the next kernels are launched; a
    copy from pinned memory, which torch caches, is queued in the stream.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


_Batch = TypeVar("_Batch", bound="_Tensors")


class _Tensors:
    """Base of dataclasses of tensors that are moved between devices together."""

    def to(self: _Batch, device: str | torch.device) -> _Batch:
        """Return a copy on a device; copies from pinned memory are asynchronous."""
        return self._each(
            lambda part: part.to(device) if isinstance(part, _Tensors) else part.to(device, non_blocking=True)
        )

    def pin_memory(self: _Batch) -> _Batch:
        """Return a copy in page-locked memory."""
        return self._each(lambda part: part.pin_memory())

    def _each(self: _Batch, move: Callable[[Any], Any]) -> _Batch:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: None if part is None else move(part) for name, part in parts.items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class InterpolatedViews(_Tensors):
    """One interpolated view of each image, and the other image it was made from.

    Attributes:
        interpolated: the interpolated view; the image itself if there is no view.
        partner: the partner's real image; the image itself if there is no view.
        alpha: the weight of the batch's own image, 1 - alpha that of the partner; 1 if there is no view.
        exists: whether there is a view.
        sizes: original (height, width) of the interpolated view and of the partner.
    """

    interpolated: UInt8[Tensor, "B C S S"]
    partner: UInt8[Tensor, "B C S S"]
    alpha: Float[Tensor, " B"]
    exists: Bool[Tensor, " B"]
    sizes: Int64[Tensor, "B 2 2"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch(_Tensors):
    """Images with their synthetic views.

    Attributes:
        real: the images.
        views: K views of each image; the image itself in place of a missing view.
        view_exists: whether each view exists.
        index: position of each image in the loader's index.
        label: class of each image, -1 without a class.
        sizes: original (height, width) of the image and of each view.
        mixed: interpolated views, if the loader has any.
    """

    real: UInt8[Tensor, "B C S S"]
    views: UInt8[Tensor, "B K C S S"]
    view_exists: Bool[Tensor, "B K"]
    index: Int64[Tensor, " B"]
    label: Int64[Tensor, " B"]
    sizes: Int64[Tensor, "B 1+K 2"]
    mixed: InterpolatedViews | None = None

    def __len__(self) -> int:
        return len(self.index)
