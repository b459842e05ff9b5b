"""Every kind of image file comes out as the RGB picture a viewer shows."""

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


def test_damaged_exif_does_not_cost_the_image(picture):
    data = _encode(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff\x12\x01")
    assert decode_rgb(data).size == picture.size


def test_palette_grey_and_one_bit(picture):
    palette = picture.quantize(64)
    assert np.array_equal(decode_rgb(_encode(palette)), palette.convert("RGB"))
    grey = picture.convert("L")
    assert np.array_equal(decode_rgb(_encode(grey)), np.stack([grey] * 3, -1))
    bits = picture.convert("1")
    assert np.array_equal(decode_rgb(_encode(bits)), np.stack([np.asarray(bits) * np.uint8(255)] * 3, -1))


def test_cmyk_jpeg_keeps_its_colours(picture):
    decoded = np.asarray(decode_rgb(_encode(picture.convert("CMYK"), "JPEG", quality=95)), float)
    assert np.abs(decoded - np.asarray(picture)).mean() < 4


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("TIFF", "tif"), ("PPM", "pgm")])
def test_16_bit_grey_is_scaled_not_clipped(kind, suffix):
    values = np.linspace(0, 65535, 24 * 40).round().astype(np.uint16).reshape(24, 40)
    decoded = np.asarray(decode_rgb(_encode(Image.fromarray(values), kind)))
    assert np.array_equal(decoded[..., 0], np.round(values / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_lie_over_white(picture, mode):
    opaque = picture.convert("L") if mode == "LA" else picture
    image = opaque.convert("RGBA")
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, :20] = 0
    image.putalpha(Image.fromarray(alpha))
    data = _encode(image.quantize(64), "PNG") if mode == "PA" else _encode(image.convert(mode))
    decoded = np.asarray(decode_rgb(data))
    assert (decoded[:, :20] == 255).all()
    assert np.abs(decoded[:, 20:].astype(int) - np.asarray(opaque.convert("RGB"))[:, 20:]).mean() < 20


def test_half_transparent_black_is_grey():
    decoded = np.asarray(decode_rgb(_encode(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))))
    assert (np.abs(decoded.astype(int) - 127) <= 1).all()


def test_the_first_frame_of_an_animation(picture):
    frames = [picture.convert("P"), Image.new("P", picture.size)]
    data = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(decode_rgb(data), float) - np.asarray(frames[0].convert("RGB"))).mean() < 1


def _bomb():
    """A small file that claims to be 60,000 x 60,000 pixels."""
    data = bytearray(_encode(Image.new("1", (1, 1))))
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">II", 60000, 60000) + bytes(data[24:29])
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"plain text", "not an image"),
        (_encode(Image.effect_noise((64, 64), 50), "JPEG")[:900], "truncated"),
        (_bomb(), "decompression bomb"),
        (_encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
        (_encode(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), "32-bit"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path, data, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=rf"broken\.jpg: .*{reason}"):
        decode_rgb(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImage, match=r"gone\.png: no such file"):
        decode_rgb(tmp_path / "gone.png")


def test_squash_keeps_the_whole_image_and_reports_its_size(picture):
    pixels, size = decode_square(_encode(picture), 20)
    assert size == (24, 40)
    assert np.array_equal(pixels, picture.resize((20, 20), Image.Resampling.BICUBIC))


def test_squash_of_a_square_of_that_size_changes_nothing():
    noise = Image.effect_noise((32, 32), 80).convert("RGB")
    assert np.array_equal(decode_square(_encode(noise), 32)[0], noise)


@pytest.mark.parametrize(("size", "resize"), [(16, None), (16, 21), (24, 24), (32, 37)])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (33, 57)])
def test_center_is_torchvisions_resize_and_center_crop(size, resize, shape):
    from torchvision.transforms import v2

    image = Image.effect_noise(shape, 80).convert("RGB")
    expected = v2.Compose([v2.Resize(resize or size), v2.CenterCrop(size)])(image)
    pixels, _ = decode_square(_encode(image), size, fit="center", resize=resize)
    assert np.array_equal(pixels, expected)


def test_a_large_jpeg_reduced_on_decoding_stays_close(picture):
    large = picture.resize((1600, 960), Image.Resampling.BICUBIC)
    data = _encode(large, "JPEG", quality=95)
    pixels, size = decode_square(data, 64)
    assert size == (960, 1600)
    direct = decode_rgb(data).resize((64, 64), Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(float) - np.asarray(direct, float)).mean() < 1.5
