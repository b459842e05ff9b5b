"""How synthetic views enter a pair: the policies of apps/pretrain, with images that show where they come from."""

import dataclasses

import pytest
import torch

from genviews.pretraining.views import make_interpolated, make_views, synthetic_list
from genviews.recipes import RECIPES, AugmentationConfig
from pairdata import Augment, InterpolatedViews, PairBatch

REAL, SYNTHETIC = 60, 180


def flat(count: int, value: int) -> torch.Tensor:
    """Images of one colour, a little green, so that grey and hue would show."""
    return torch.full((count, 3, 8, 8), value, dtype=torch.uint8) + torch.tensor([0, 20, 0]).byte()[:, None, None]


def batch_of(count: int, exists: torch.Tensor | None = None, mixed: bool = False) -> PairBatch:
    exists = torch.ones(count, 1, dtype=torch.bool) if exists is None else exists
    real, sizes = flat(count, REAL), torch.full((count, 2, 2), 8)
    views = torch.where(exists[:, 0, None, None, None], flat(count, SYNTHETIC), real)[:, None]
    return PairBatch(
        real=real,
        views=views,
        view_exists=exists,
        index=torch.arange(count),
        label=torch.zeros(count, dtype=torch.long),
        sizes=sizes,
        mixed=InterpolatedViews(
            interpolated=real, partner=real, alpha=torch.ones(count), exists=exists[:, 0], sizes=sizes
        ) if mixed else None,
    )  # fmt: skip


def recipe(policy: str, probability: float = 1.0, **lists: object):
    """A recipe whose augmentations change nothing that a flat image shows, but for what is given."""
    plain = Augment(
        size=8, flip=0.5, jitter=None, gray_p=0.0, blur_p=0.0, solarize_p=0.0, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    views = AugmentationConfig(**{"first": plain, "second": plain, **lists})
    made = RECIPES["small-simclr"]()
    return dataclasses.replace(made, augmentation=views, policy=policy, view_probability=probability)


def synthetic(view: torch.Tensor) -> torch.Tensor:
    """Which images of a view are synthetic."""
    red = (view[:, 0].mean((1, 2)) * 255).round()
    assert set(red.tolist()) <= {float(REAL), float(SYNTHETIC)}
    return red == SYNTHETIC


def drawn(policy: str, batch: PairBatch, probability: float = 1.0, seed: int = 0):
    made = recipe(policy, probability)
    first, second = make_views(batch, made, torch.Generator().manual_seed(seed))
    return synthetic(first), synthetic(second)


def test_genview_has_one_synthetic_view_in_either_place():
    first, second = drawn("genview", batch_of(400))
    assert torch.equal(first, ~second)
    assert 160 < first.sum() < 240


@pytest.mark.parametrize(("policy", "place"), [("gencl", 0), ("gensis", 1)])
def test_gencl_has_it_first_and_gensis_second(policy, place):
    pair = drawn(policy, batch_of(50))
    assert pair[place].all() and not pair[1 - place].any()


def test_none_has_no_synthetic_view():
    first, second = drawn("none", batch_of(50))
    assert not first.any() and not second.any()


@pytest.mark.parametrize("policy", ["genview", "gencl", "gensis"])
def test_a_share_of_the_pairs_has_a_view(policy):
    first, second = drawn(policy, batch_of(2000), probability=0.25)
    assert not (first & second).any()
    assert 400 < (first | second).sum() < 600
    first, second = drawn(policy, batch_of(50), probability=0.0)
    assert not (first | second).any()


@pytest.mark.parametrize("policy", ["genview", "gencl", "gensis"])
def test_two_real_views_where_there_is_no_synthetic_one(policy):
    exists = torch.arange(200)[:, None] % 2 == 0
    first, second = drawn(policy, batch_of(200, exists))
    assert torch.equal(first | second, exists[:, 0])


@pytest.mark.parametrize("policy", ["genview", "gencl", "gensis", "none"])
def test_a_data_set_without_views_trains_on_two_real_ones(policy):
    batch = batch_of(20)
    nothing = {"views": batch.views[:, :0], "view_exists": batch.view_exists[:, :0], "sizes": batch.sizes[:, :1]}
    bare = dataclasses.replace(batch, **nothing)
    first, second = drawn(policy, bare)
    assert not first.any() and not second.any()


def test_gencl_augments_synthetic_views_by_a_list_of_their_own():
    """Grey is for real views alone; solarization is for both, as often as on average of the two lists."""
    plain = recipe("gencl").augmentation.first
    lists = {"first": dataclasses.replace(plain, gray_p=1.0), "second": dataclasses.replace(plain, gray_p=1.0)}
    made = recipe("gencl", **lists)
    exists = torch.arange(40)[:, None] % 2 == 0
    first, second = make_views(batch_of(40, exists), made, torch.Generator().manual_seed(0))
    grey = [(view.amax(1) - view.amin(1)).amax((1, 2)) < 1e-3 for view in (first, second)]
    assert torch.equal(grey[0], ~exists[:, 0])
    assert grey[1].all()
    own = synthetic_list(
        dataclasses.replace(plain, blur_p=1.0, gray_p=0.2),
        dataclasses.replace(made.augmentation, second=dataclasses.replace(plain, solarize_p=0.2)),
    )
    assert own == dataclasses.replace(plain, solarize_p=0.1)


def test_gencl_gives_every_image_what_it_would_have_got_alone():
    """The two lists, each applied to the whole batch, and put together by origin."""
    torch.manual_seed(0)
    made = RECIPES["imagenet-vicreg"]()
    lists = {name: dataclasses.replace(getattr(made.augmentation, name), size=16) for name in ("first", "second")}
    made = dataclasses.replace(made, augmentation=AugmentationConfig(**lists), view_probability=1.0)
    batch = batch_of(12, torch.arange(12)[:, None] % 3 == 0)
    batch = dataclasses.replace(batch, real=torch.randint(256, (12, 3, 8, 8)).byte())
    views = make_views(batch, made, torch.Generator().manual_seed(3))

    generator = torch.Generator().manual_seed(3)
    torch.rand(12, generator=generator)
    torch.randint(1, (12,), generator=generator)
    is_synthetic = (batch.view_exists[:, 0], torch.zeros(12, dtype=torch.bool))
    pixels = (torch.where(batch.view_exists[..., None, None], batch.views[:, 0], batch.real), batch.real)
    for place, full in enumerate((lists["first"], lists["second"])):
        own = synthetic_list(full, made.augmentation)
        each = [augment.apply(pixels[place], augment.draw(batch.sizes[:, 0], generator)) for augment in (full, own)]
        expected = torch.where(is_synthetic[place][:, None, None, None], each[1], each[0])
        torch.testing.assert_close(views[place], expected, rtol=0, atol=1e-5)


def test_local_views_come_from_the_two_images_in_turn():
    plain = recipe("gensis").augmentation.first
    made = recipe("gensis", local=dataclasses.replace(plain, size=4), local_count=4)
    views = make_views(batch_of(6), made, torch.Generator().manual_seed(0))
    assert [tuple(view.shape[-2:]) for view in views] == [(8, 8)] * 2 + [(4, 4)] * 4
    assert [bool(synthetic(view).all()) for view in views] == [False, True, False, True, False, True]


def multi_crop(policy: str, crops: str):
    plain = recipe(policy).augmentation.first
    made = recipe(policy, local=dataclasses.replace(plain, size=4), local_count=6)
    made = dataclasses.replace(made, synthetic_crops=crops)
    views = make_views(batch_of(800), made, torch.Generator().manual_seed(0))
    return torch.stack([synthetic(view) for view in views])


def test_genview_makes_one_random_view_synthetic():
    """MultiView.random_choose of xiaojieli0903/genview: SwAV's 2 + 6 crops have one synthetic view of eight."""
    drawn = multi_crop("genview", "one")
    assert (drawn.sum(0) == 1).all()
    assert all(60 < count < 140 for count in drawn.sum(1).tolist())


def test_genview_with_half_of_the_crops_alternates_between_images():
    drawn = multi_crop("genview", "half")
    assert (drawn.sum(0) == 4).all() and torch.equal(drawn[::2], drawn[:1].expand(4, -1))
    assert torch.equal(multi_crop("gensis", "one"), multi_crop("gensis", "half"))


@pytest.mark.parametrize("policy", ["genview", "gencl", "gensis", "none"])
def test_interpolated_views_belong_to_gensis(policy):
    generator = torch.Generator().manual_seed(0)
    made = make_interpolated(batch_of(4, mixed=True), recipe(policy), generator)
    assert (made is not None) == (policy == "gensis")
