"""Make the views of a batch on the device according to the recipe's policy.

none     both views are of the real image.
genview  one random view of all, including local crops, is of the synthetic image, the others are of the real one. Both
         share one list of augmentations. https://arxiv.org/abs/2403.12003, MultiView.random_choose in
         mmpretrain/datasets/transforms/wrappers.py of xiaojieli0903/genview@38a6a78. `synthetic_crops="half"` instead
         makes one of the two global views synthetic and alternates local crops between both images.
gensis   the real image first, the synthetic one second, so that Gen-DINO's disentanglement target is the teacher's
         answer to the source itself; with interpolated views. https://arxiv.org/abs/2412.01672.
gencl    the synthetic image first (figures 2 and 3), cropped, flipped, jittered and solarized, but neither blurred nor
         gray (section 4.2); the real image second, with the full list. Papers: GenCL; no code was published.

Under gensis and gencl, local crops alternate between both images. The papers do not specify this (Gen-DINO's student
sees both images at every size).

`view_probability` is alpha of GenView and gamma of GenCL: the probability that a pair has a synthetic view. Otherwise,
or if the image has no synthetic view, both views are of the real image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from genviews.recipes import AugmentationConfig, Recipe
from pairdata import Augment, PairBatch
from sslzoo.methods import Interpolated
from sslzoo.training import ViewBatch


class Images(NamedTuple):
    """One image for each position in a batch."""

    pixels: UInt8[Tensor, "b c s s"]
    sizes: Int[Tensor, "b 2"]
    synthetic: Bool[Tensor, " b"]


def make_views(batch: PairBatch, recipe: Recipe, generator: torch.Generator) -> list[Float[Tensor, "b c _ _"]]:
    """Return two global views by the policy of the recipe, followed by the local views."""
    plan = recipe.augmentation
    lists = [plan.first, plan.second] + ([plan.local] * plan.local_count if plan.local else [])
    own = recipe.policy == "gencl"
    views = []
    for image, augment in zip(choose_images(batch, recipe, len(lists), generator), lists, strict=True):
        if own:
            views.append(_augment_by_origin(image, augment, synthetic_list(augment, plan), generator))
        else:
            views.append(augment(image.pixels, image.sizes, generator))
    return views


def make_view_batch(batch: PairBatch, generator: torch.Generator, *, recipe: Recipe) -> ViewBatch:
    """Return the input of a training step: views, labels, and interpolated views for Gen-DINO."""
    views = make_views(batch, recipe, generator)
    interpolated = make_interpolated(batch, recipe, generator) if recipe.method == "gen-dino" else None
    inputs = {} if interpolated is None else {"interpolated": interpolated}
    return ViewBatch(views=views, labels=batch.label, inputs=inputs)


def choose_images(batch: PairBatch, recipe: Recipe, count: int, generator: torch.Generator) -> list[Images]:
    """Choose the source image of each of `count` views; the first two are global."""
    real = Images(batch.real, batch.sizes[:, 0], torch.zeros_like(batch.index, dtype=torch.bool))
    if recipe.policy == "none":
        return [real] * count
    other = _synthetic_or_real(batch, real, recipe.view_probability, generator)
    if recipe.policy == "gencl":
        return _in_turn(other, real, count)
    if recipe.policy == "gensis":
        return _in_turn(real, other, count)
    candidates = count if recipe.synthetic_crops == "one" else 2
    drawn = (torch.rand(len(batch), generator=generator) * candidates).long().to(batch.real.device)
    if recipe.synthetic_crops == "half":
        return _in_turn(_choose(drawn == 0, other, real), _choose(drawn == 0, real, other), count)
    return [_choose(drawn == index, other, real) for index in range(count)]


def _in_turn(first: Images, second: Images, count: int) -> list[Images]:
    return [(first, second)[index % 2] for index in range(count)]


def synthetic_list(augment: Augment, plan: AugmentationConfig) -> Augment:
    """Return GenCL's augmentation of synthetic views: the recipe's own without blur and grayscale.

    The paper does not say how often each operation applies; solarized is as often as the two real views are on average
    (VICReg's lists: 0 and 0.2).
    """
    solarize = (plan.first.solarize_p + plan.second.solarize_p) / 2
    return replace(augment, blur_p=0.0, gray_p=0.0, solarize_p=solarize)


def make_interpolated(batch: PairBatch, recipe: Recipe, generator: torch.Generator) -> Interpolated | None:
    """Return the disentanglement loss's input: a view of the interpolated image and one of its second source."""
    if batch.mixed is None or recipe.policy != "gensis":
        return None
    augment, mixed = recipe.augmentation.first, batch.mixed
    return Interpolated(
        view=augment(mixed.interpolated, mixed.sizes[:, 0], generator),
        partner=augment(mixed.partner, mixed.sizes[:, 1], generator),
        alpha=mixed.alpha,
        exists=mixed.exists,
    )


def _synthetic_or_real(batch: PairBatch, real: Images, probability: float, generator: torch.Generator) -> Images:
    """Choose a random synthetic image with this probability, if there is one, otherwise the real image."""
    if not batch.views.shape[1]:
        return real
    drawn = torch.rand(len(batch), generator=generator) < probability
    which = torch.randint(batch.views.shape[1], (len(batch),), generator=generator).to(batch.real.device)
    rows = torch.arange(len(batch), device=batch.real.device)
    there = drawn.to(batch.real.device) & batch.view_exists[rows, which]
    synthetic = Images(batch.views[rows, which], batch.sizes[rows, 1 + which], torch.ones_like(there))
    return _choose(there, synthetic, real)


def _choose(condition: Bool[Tensor, " b"], yes: Images, no: Images) -> Images:
    return Images(
        torch.where(condition[:, None, None, None], yes.pixels, no.pixels),
        torch.where(condition[:, None], yes.sizes, no.sizes),
        torch.where(condition, yes.synthetic, no.synthetic),
    )


def _augment_by_origin(
    images: Images, real: Augment, synthetic: Augment, generator: torch.Generator
) -> Float[Tensor, "b c _ _"]:
    """Augment images by origin; both augmentations draw for all images, so draws depend only on the batch size."""
    origin = images.synthetic.cpu()
    draws = real.draw(images.sizes, generator), synthetic.draw(images.sizes, generator)
    views = torch.empty(len(origin), real.channels, real.size, real.size, device=images.pixels.device)
    for augment, drawn, rows in zip((real, synthetic), draws, (~origin, origin), strict=True):
        where = rows.nonzero()[:, 0]
        views[where.to(views.device)] = augment.apply(images.pixels[where.to(views.device)], drawn[where])
    return views
