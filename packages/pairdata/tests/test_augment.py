"""The whole augmentation against torchvision's functionals applied to one image after another."""

import subprocess
import sys
from itertools import permutations

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pairdata import Augment, crop, sample_crops
from pairdata import batch_augment as module

FUNCTIONALS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def _images(count, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (255 * smooth).round().to(torch.uint8).contiguous(memory_format=torch.channels_last)


def _one_by_one(augment, images, draws):
    orders = list(permutations(range(4)))
    for i in range(len(images)):
        value = crop(images[i : i + 1], draws.boxes[i : i + 1], augment.size)[0].float() / 255
        if draws.flip[i]:
            value = tv.horizontal_flip(value)
        if draws.order[i] < 24:
            for step in orders[int(draws.order[i])]:
                value = FUNCTIONALS[step](value, float(draws.factors[i, step]))
        if draws.gray[i]:
            value = tv.rgb_to_grayscale(value, 3)
        if draws.blur[i]:
            sigma = float(draws.sigma[i])
            reach = int((3 * draws.sigma[i]).ceil())
            value = tv.gaussian_blur(value, [2 * reach + 1] * 2, [sigma, sigma])
        if draws.solarize[i]:
            value = tv.solarize(value, 0.5)
        yield tv.normalize(value, augment.mean, augment.std)


@pytest.mark.parametrize(("size", "count"), [(32, 60), (72, 30)])
def test_a_batch_is_what_torchvision_makes_of_each_image(size, count):
    images = _images(count, 80)
    sizes = torch.tensor([[60, 90]]).repeat(count, 1)
    augment = Augment(size=size, solarize_p=0.3)
    draws = augment.draw(sizes, torch.Generator().manual_seed(1))
    expected = torch.stack(list(_one_by_one(augment, images, draws)))
    torch.testing.assert_close(augment.apply(images, draws), expected, atol=1e-4, rtol=0)


def test_interpolation_changes_the_crop_but_no_random_draw():
    images, sizes = _images(4, 40), torch.full((4, 2), 40)
    smooth, sharp = (Augment(size=24, jitter=None, interpolation=kind) for kind in ("bilinear", "bicubic"))
    draws, others = (each.draw(sizes, torch.Generator().manual_seed(0)) for each in (smooth, sharp))
    assert torch.equal(draws.boxes, others.boxes) and torch.equal(draws.flip, others.flip)
    plain = {"gray_p": 0.0, "blur_p": 0.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "jitter": None}
    for kind in ("bilinear", "bicubic"):
        view = Augment(size=24, interpolation=kind, **plain)
        draws = view.draw(sizes, torch.Generator().manual_seed(0))
        expected = crop(images, draws.boxes, 24, flip=draws.flip, interpolation=kind)
        torch.testing.assert_close(view.apply(images, draws), expected / 255)


@pytest.mark.parametrize("block", [1, 3 * 32 * 32 * 7, 2**30])
def test_how_many_images_are_worked_on_together_changes_nothing(monkeypatch, block):
    images, sizes, augment = _images(40, 40), torch.full((40, 2), 40), Augment(size=32, solarize_p=0.2)
    draws = augment.draw(sizes, torch.Generator().manual_seed(0))
    expected = augment.apply(images, draws)
    monkeypatch.setattr(module, "_CHUNK_VALUES", block)
    torch.testing.assert_close(augment.apply(images, draws), expected, atol=1e-5, rtol=0)


def test_calling_draws_from_the_generator_given_and_no_other():
    images, sizes, augment = _images(8, 32), torch.full((8, 2), 32), Augment(size=32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    views = [augment(images, sizes, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.equal(torch.get_rng_state(), before)
    same_boxes = sample_crops(sizes, generator=torch.Generator().manual_seed(5))
    assert torch.equal(augment.draw(sizes, torch.Generator().manual_seed(5)).boxes, same_boxes)


def test_parameters_are_drawn_with_the_stated_frequencies_and_ranges():
    count = 20_000
    augment = Augment(size=8, jitter=(0.4, 0.3, 1.5, 0.1), flip=0.3, solarize_p=0.15, blur_sigma=(0.5, 2.0))
    draws = augment.draw(torch.full((count, 2), 32), torch.Generator().manual_seed(0))
    for drawn, share in (
        (draws.flip, 0.3),
        (draws.order < 24, 0.8),
        (draws.gray, 0.2),
        (draws.blur, 0.5),
        (draws.solarize, 0.15),
    ):
        assert drawn.float().mean().item() == pytest.approx(share, abs=0.015)
    assert (draws.order.bincount()[:24] / count - 0.8 / 24).abs().max() < 0.006
    low, high = torch.tensor([0.6, 0.7, 0.0, -0.1]), torch.tensor([1.4, 1.3, 2.5, 0.1])
    torch.testing.assert_close(draws.factors.amin(0), low, atol=0.01, rtol=0)
    torch.testing.assert_close(draws.factors.amax(0), high, atol=0.01, rtol=0)
    torch.testing.assert_close(draws.factors.mean(0), (low + high) / 2, atol=0.02, rtol=0)
    assert 0.5 <= draws.sigma.min() < 0.51 < 1.99 < draws.sigma.max() <= 2.0


def test_with_everything_off_the_image_is_only_normalised():
    images = _images(5, 32)
    whole = (1.0, 1.0)
    augment = Augment(size=32, crop_scale=whole, crop_ratio=whole, flip=0.0, jitter=None, gray_p=0.0, blur_p=0.0)
    views = augment(images, torch.full((5, 2), 32), torch.Generator())
    expected = tv.normalize(images.float() / 255, augment.mean, augment.std)
    torch.testing.assert_close(views, expected, atol=1e-5, rtol=0)


def test_an_empty_batch_stays_empty():
    empty = torch.empty(0, 3, 16, 16, dtype=torch.uint8)
    assert Augment(size=8)(empty, torch.empty(0, 2, dtype=torch.long), torch.Generator()).shape == (0, 3, 8, 8)


def test_the_configuration_costs_no_torch():
    code = "import sys; from pairdata import Augment; Augment(size=8); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
