"""Decoding image files to squares; the kinds of files are tested in packages/core."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pairdata import UnreadableImage, decode_rgb
from pairdata.decode import decode_square


def _encode(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.fixture
def picture():
    """A smooth picture without any symmetry, 24 x 40."""
    y, x = np.mgrid[0:24, 0:40]
    return Image.fromarray(np.stack([6 * x, 10 * y, 3 * (x + y)], -1).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(picture, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_rgb(data), expected)
    _, size = decode_square(data, 16)
    assert size == expected.size[::-1]


def test_an_unreadable_file_is_named_with_the_reason(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(_encode(Image.effect_noise((64, 64), 50), "JPEG")[:900])
    for name, reason in (("broken.jpg", "truncated"), ("gone.png", "no such file")):
        with pytest.raises(UnreadableImage, match=rf"cannot read the image .*{name}': .*{reason}"):
            decode_rgb(tmp_path / name)
        with pytest.raises(UnreadableImage, match=reason):
            decode_square(tmp_path / name, 8)


def test_value_range_is_passed_on():
    data = _encode(Image.fromarray(np.linspace(300, 4300, 64).round().astype(np.uint16).reshape(8, 8)))
    whole, (square, _) = decode_rgb(data, value_range=(0.0, 4300.0)), decode_square(data, 8, value_range=(0.0, 4300.0))
    assert np.array_equal(whole, square) and square.min() == 18 and square.max() == 255


def test_squash_keeps_the_whole_image_and_reports_its_size(picture):
    pixels, size = decode_square(_encode(picture), 20)
    assert size == (24, 40)
    assert np.array_equal(pixels, picture.resize((20, 20), Image.Resampling.BICUBIC))


def test_squash_of_a_square_of_that_size_changes_nothing():
    noise = Image.effect_noise((32, 32), 80).convert("RGB")
    assert np.array_equal(decode_square(_encode(noise), 32)[0], noise)


@pytest.mark.parametrize(("size", "resize"), [(16, None), (16, 21), (24, 24), (32, 37)])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (33, 57), (400, 320)])
def test_center_is_torchvisions_resize_and_center_crop(size, resize, shape):
    from torchvision.transforms import v2

    image = Image.effect_noise(shape, 80).convert("RGB")
    data = _encode(image, "JPEG", quality=95)
    image = decode_rgb(data)
    for interpolation in ("bilinear", "bicubic"):
        expected = v2.Compose([v2.Resize(resize or size, v2.InterpolationMode(interpolation)), v2.CenterCrop(size)])
        pixels, _ = decode_square(data, size, fit="center", resize=resize, interpolation=interpolation)
        assert np.array_equal(pixels, expected(image))


def test_a_large_jpeg_reduced_on_decoding_stays_close(picture):
    large = picture.resize((1600, 960), Image.Resampling.BICUBIC)
    data = _encode(large, "JPEG", quality=95)
    pixels, size = decode_square(data, 64)
    assert size == (960, 1600)
    direct = decode_rgb(data).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(float) - np.asarray(direct, float)).mean() < 1.5
