"""The center crop equals a whole resize and a crop, at the cost of the crop."""

import numpy as np
import pytest
from PIL import Image

from pairdata import decode as center_crop
from pairdata.decode import resize_and_center_crop, resized


def slow(image, size, resize, resampling=Image.Resampling.BILINEAR):
    """torchvision's Resize and CenterCrop."""
    whole = image.resize(resized(*image.size, resize), resampling)
    left, top = round((whole.width - size) / 2), round((whole.height - size) / 2)
    return whole.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("size", [(40, 24), (24, 40), (33, 57), (3, 91)])
@pytest.mark.parametrize(("side", "short"), [(16, 16), (16, 21), (24, 24), (40, 32)])
@pytest.mark.parametrize("resampling", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_pixels_equal_a_whole_resize_or_are_close_if_only_the_box_is(monkeypatch, size, side, short, resampling):
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    image = Image.fromarray(np.stack([x * 250 // size[0], y * 250 // size[1], (x + y) % 200], -1).astype(np.uint8))
    expected = slow(image, side, short, resampling)
    assert np.array_equal(resize_and_center_crop(image, side, short, resampling), expected)
    monkeypatch.setattr(center_crop, "MAX_RESIZED", 1)
    boxed = np.asarray(resize_and_center_crop(image, side, short, resampling), int)
    assert np.abs(boxed - np.asarray(expected, int)).mean() < 1


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000)])
def test_a_one_pixel_line_is_cropped_without_a_whole_resize(monkeypatch, size):
    made, resize = [], Image.Image.resize

    def watched(image, size, *args, **options):
        made.append(size[0] * size[1])
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    image = Image.new("RGB", size, (10, 20, 30))
    cut = resize_and_center_crop(image, 224, 256)
    assert cut.size == (224, 224) and cut.getcolors() == [(224 * 224, (10, 20, 30))]
    assert max(made) == 224 * 224
