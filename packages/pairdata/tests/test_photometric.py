"""Every operation against torchvision's functional on single images."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pairdata.photometric import blur_, brightness_, contrast_, gray_, hue_, saturation_, solarize_

OPERATIONS = {
    "brightness": (brightness_, tv.adjust_brightness, (0.0, 2.0)),
    "contrast": (contrast_, tv.adjust_contrast, (0.0, 2.0)),
    "saturation": (saturation_, tv.adjust_saturation, (0.0, 2.0)),
    "hue": (hue_, tv.adjust_hue, (-0.5, 0.5)),
}


@pytest.fixture
def images():
    """Noise, with gray pixels, ties between channels, black and white."""
    values = torch.randint(0, 256, (6, 3, 19, 23), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    values[0, :, :6] = 77
    values[1, 1] = values[1, 0]
    values[2, 2] = values[2, 1]
    values[3, 0] = values[3, 2]
    values[4, :, :5], values[4, :, 5:9] = 0, 255
    return values


@pytest.mark.parametrize("name", OPERATIONS)
def test_jitter_is_torchvisions_image_by_image(images, name):
    operation, reference, (low, high) = OPERATIONS[name]
    factors = torch.linspace(low, high, 6)
    exact = images.float() / 255
    operation(exact, factors)
    for image, source, factor in zip(exact, images, factors.tolist(), strict=True):
        torch.testing.assert_close(image, reference(source.float() / 255, factor), atol=5e-6, rtol=0)
        rounded = reference(source, factor).float() / 255  # torchvision's own 8-bit version
        assert (image - rounded).abs().max() <= 2 / 255


def test_grey_is_torchvisions(images):
    values = images.float() / 255
    gray_(values)
    for image, source in zip(values, images, strict=True):
        torch.testing.assert_close(image, tv.rgb_to_grayscale(source.float() / 255, 3), atol=1e-6, rtol=0)
        assert (image - tv.rgb_to_grayscale(source, 3) / 255).abs().max() <= 1 / 255


def test_solarize_is_torchvisions(images):
    values = images.float() / 255
    solarize_(values)
    for image, source in zip(values, images, strict=True):
        torch.testing.assert_close(image, tv.solarize(source.float() / 255, 0.5), atol=1e-6, rtol=0)
        torch.testing.assert_close(image, tv.solarize(source, 128).float() / 255, atol=1e-6, rtol=0)


def test_hue_turned_round_is_the_same_image(images):
    values = images.float() / 255
    hue_(values, torch.ones(6))
    torch.testing.assert_close(values, images.float() / 255, atol=5e-6, rtol=0)


@pytest.mark.parametrize("side", [8, 32, 64, 96])
def test_blur_is_torchvisions_image_by_image(side):
    images = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.4, 1.0, 1.37, 2.0])
    blurred = images.clone()
    blur_(blurred, sigma)
    for image, source, s in zip(blurred, images, sigma.tolist(), strict=True):
        reach = min(int(torch.tensor(3 * s).ceil()), side - 1)
        expected = tv.gaussian_blur(source, [2 * reach + 1] * 2, [s, s])
        torch.testing.assert_close(image, expected, atol=2e-6, rtol=0)


def test_blur_reaching_three_sigma_is_a_wide_blur_to_one_level():
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    blurred = image.clone()
    blur_(blurred, torch.tensor([1.5]))
    assert (blurred - tv.gaussian_blur(image, [23, 23], [1.5, 1.5])).abs().max() < 1 / 255
