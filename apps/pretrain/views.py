"""From a batch of images on the device to the views that a method takes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from pairdata import PairBatch
from recipes import Recipe, Views
from sslzoo.methods import Interpolated


def make_views(batch: PairBatch, recipe: Recipe, generator: torch.Generator) -> list[Float[Tensor, "b 3 _ _"]]:
    """Two global views, one of them of the synthetic image where it is drawn and there, then the local views.

    Which of the two is synthetic is drawn as well (as GenView's code does), but Gen-DINO keeps the real image first:
    its disentanglement target is the teacher's answer to the source itself.
    """
    plan = recipe.augmentation
    first, second = (batch.real, batch.sizes[:, 0]), _second_image(batch, recipe.view_probability, generator)
    if recipe.method != "gen-dino":
        swap = torch.rand(len(batch), generator=generator) < 0.5
        first, second = _choose(swap, second, first), _choose(swap, first, second)
    views = [plan.first(*first, generator), plan.second(*second, generator)]
    return views + _local_views(plan, first, second, generator)


def make_interpolated(batch: PairBatch, recipe: Recipe, generator: torch.Generator) -> Interpolated | None:
    """The disentanglement term's input: a view of the interpolated image and one of the second source."""
    if batch.mixed is None:
        return None
    augment, mixed = recipe.augmentation.first, batch.mixed
    return Interpolated(
        view=augment(mixed.interpolated, mixed.sizes[:, 0], generator),
        partner=augment(mixed.partner, mixed.sizes[:, 1], generator),
        alpha=mixed.alpha,
        exists=mixed.exists,
    )


Images = tuple[UInt8[Tensor, "b 3 s s"], Int[Tensor, "b 2"]]


def _second_image(batch: PairBatch, probability: float, generator: torch.Generator) -> Images:
    """The synthetic image with this probability, where there is one, else the real image again."""
    real = (batch.real, batch.sizes[:, 0])
    if not batch.views.shape[1]:
        return real
    drawn = torch.rand(len(batch), generator=generator) < probability
    which = torch.randint(batch.views.shape[1], (len(batch),), generator=generator).to(batch.real.device)
    rows = torch.arange(len(batch), device=batch.real.device)
    there = batch.view_exists[rows, which]
    synthetic = (batch.views[rows, which], batch.sizes[rows, 1 + which])
    return _choose(drawn.to(there.device) & there, synthetic, real)


def _choose(condition: Bool[Tensor, " b"], yes: Images, no: Images) -> Images:
    condition = condition.to(yes[0].device)
    images = torch.where(condition[:, None, None, None], yes[0], no[0])
    return images, torch.where(condition[:, None], yes[1], no[1])


def _local_views(plan: Views, first: Images, second: Images, generator: torch.Generator) -> list[Tensor]:
    """Small crops, taken from the two images in turn."""
    if plan.local is None:
        return []
    return [plan.local(*(second if i % 2 else first), generator) for i in range(plan.local_count)]
