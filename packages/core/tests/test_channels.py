"""Images of any number of channels: what is written is read back, and other files are one-line errors."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genviews_core import multiband
from genviews_core.channels import map_channels, ranges_of, read_channels, read_preview, read_stored
from genviews_core.images import UnreadableImage, read_rgb

tifffile = pytest.importorskip("tifffile")
pytestmark = pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
HIGH, WIDE = 6, 9


def pixels(channels, dtype=np.uint16, top=4000):
    values = np.random.default_rng(channels).integers(0, top, (HIGH, WIDE, channels))
    return values.astype(dtype)


def tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="minisblack", metadata=None, **options)
    return buffer.getvalue()


def scaled(values, low, high):
    return ((values.astype(float) - low) * (255 / (high - low))).round().clip(0, 255)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages", "tiles", "lzw", "deflate", "packbits"])
def test_every_layout_gives_the_channels_in_order(dtype, layout):
    values = pixels(5, dtype, 200 if dtype == "uint8" else 4000)
    if layout == "lzw":
        pytest.importorskip("imagecodecs")
    data = {
        "interleaved": lambda: tiff(values, planarconfig="contig"),
        "planes": lambda: tiff(np.moveaxis(values, -1, 0), planarconfig="separate"),
        "pages": lambda: tiff(np.moveaxis(values, -1, 0)),
        "tiles": lambda: tiff(values, planarconfig="contig", tile=(16, 16)),
        "lzw": lambda: tiff(values, planarconfig="contig", compression="lzw", predictor=dtype[0] != "f"),
        "deflate": lambda: tiff(values, planarconfig="contig", compression="zlib"),
        "packbits": lambda: tiff(values, planarconfig="contig", compression="packbits"),
    }[layout]()
    np.testing.assert_array_equal(read_stored(data, 5), values)
    expected = values if dtype == "uint8" else scaled(values, 100, 3000)
    np.testing.assert_array_equal(read_channels(data, 5, value_range=(100, 3000)), expected)


def test_each_channel_has_its_own_range():
    values = pixels(4) // np.array([1, 2, 4, 8], np.uint16)
    data = tiff(values, planarconfig="contig")
    ranges = (0, 4000, 0, 2000, 0, 1000, 0, 500)
    low, high = np.array(ranges[::2]), np.array(ranges[1::2])
    np.testing.assert_array_equal(read_channels(data, 4, value_range=ranges), scaled(values, low, high))
    own = read_channels(data, 4)
    low, high = values.min((0, 1)), values.max((0, 1))
    np.testing.assert_array_equal(own, scaled(values, low, np.maximum(high, low + 255.0)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_is_encoded_is_read_back_and_has_the_same_bytes_every_time(channels, dtype):
    values = pixels(channels, dtype, 256)
    data = multiband.encode_tiff(values)
    assert data == multiband.encode_tiff(values)
    np.testing.assert_array_equal(read_stored(data, channels), values)


def test_three_channels_and_one_are_what_viewers_show(tmp_path):
    rgb = Image.fromarray(pixels(3, np.uint8, 256))
    rgb.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_channels(tmp_path / "a.png", 3), np.asarray(read_rgb(tmp_path / "a.png")))
    np.testing.assert_array_equal(read_channels(tmp_path / "a.png", 1)[..., 0], np.asarray(rgb.convert("L")))
    gray = pixels(1)
    np.testing.assert_array_equal(read_channels(tiff(gray[..., 0]), 1, value_range=(0, 4000)), scaled(gray, 0, 4000))
    np.testing.assert_array_equal(read_stored(tiff(gray[..., 0]), 1), gray)
    np.testing.assert_array_equal(read_channels(multiband.encode_tiff(gray.astype(np.uint8)), 1), gray.astype(np.uint8))


def test_four_channels_of_other_formats_are_stored_values():
    values = pixels(4, np.uint8, 256)
    buffer = io.BytesIO()
    Image.fromarray(values, "RGBA").save(buffer, "PNG")
    np.testing.assert_array_equal(read_channels(buffer.getvalue(), 4), values)
    two = io.BytesIO()
    Image.fromarray(values[..., :2], "LA").save(two, "PNG")
    np.testing.assert_array_equal(read_channels(two.getvalue(), 2), values[..., :2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_that_of_a_photograph(tmp_path, orientation):
    values = pixels(4, np.uint8, 256)
    data = tiff(values, planarconfig="contig", extratags=[(274, "H", 1, orientation, True)])
    image = Image.fromarray(values[..., :3])
    image.getexif()[274] = orientation
    image.save(tmp_path / "turned.png", exif=image.getexif())
    np.testing.assert_array_equal(read_channels(data, 4)[..., :3], np.asarray(read_rgb(tmp_path / "turned.png")))
    np.testing.assert_array_equal(read_channels(data, 4, upright=False), values)


def test_pages_that_are_reduced_or_masks_do_not_count():
    values = pixels(4)
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(values, planarconfig="contig", photometric="minisblack", metadata=None)
        writer.write(values[::2, ::2], planarconfig="contig", photometric="minisblack", subfiletype=1, metadata=None)
        writer.write(values[..., 0] > 0, photometric="minisblack", subfiletype=4, metadata=None)
    np.testing.assert_array_equal(read_stored(buffer.getvalue(), 4), values)


def bomb():
    """A TIFF of 4 channels and 8 x 8 pixels whose Deflate strip has 300 MB."""
    data = bytearray(tiff(np.zeros((8, 8, 4), np.uint16), planarconfig="contig", compression="zlib"))
    inflater = zlib.compressobj(9)
    strip = b"".join([inflater.compress(bytes(2**20)) for _ in range(300)]) + inflater.flush()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = {tag.code: tag.valueoffset for tag in file.pages[0].tags.values()}
        kinds = {tag.code: "<Q" if tag.dtype.name == "LONG8" else "<I" for tag in file.pages[0].tags.values()}
    struct.pack_into(kinds[273], data, tags[273], len(data))
    struct.pack_into("<I" if kinds[279] == "<I" else "<Q", data, tags[279], len(strip))
    return bytes(data) + strip


def claim(side):
    """A file that claims to have many more pixels than it has."""
    data = bytearray(tiff(pixels(4), planarconfig="contig"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for code in (256, 257):
            tag = file.pages[0].tags[code]
            struct.pack_into("<I" if tag.dtype.name == "LONG" else "<H", data, tag.valueoffset, side)
    return bytes(data)


def refused():
    four = pixels(4)
    yield "other-number", tiff(pixels(5), planarconfig="contig"), "expected 4 channels, got 5; give --channels 5"
    yield "pages", tiff(np.moveaxis(pixels(7), -1, 0)), r"got 7 \(gray pages\), a stack or 7 channels"
    yield "several-images", tiff(np.stack([four, four]), planarconfig="contig"), "got 2 pages of 4 channels"
    yield "gray", tiff(four[..., 0]), "expected 4 channels, got 1"
    yield "zstd", tiff(four, planarconfig="contig", compression="zstd") if codecs() else b"", "compression of|known"
    yield "complex", tiff(np.stack([four[..., 0].astype(np.complex64)] * 4)), "integers or real numbers"
    yield "cut", tiff(four, planarconfig="contig")[:300], ""
    yield "not-finite", tiff(np.full((4, 4, 4), np.nan, np.float32), planarconfig="contig"), "finite"
    yield "large", claim(60000), "more than 178956970 pixels"
    yield "bomb", bomb(), "far larger than the image"
    yield "short", claim(5000), "too short for 5000 x 5000 pixels"
    yield "png", png(np.zeros((4, 4, 3), np.uint8)), "expected 4 channels, got 3"
    yield "text", b"no image", "not an image of a known format"


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def codecs():
    try:
        import imagecodecs  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


REFUSED = {name: (data, reason) for name, data, reason in refused()}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_file_is_a_one_line_error_that_names_it(tmp_path, name):
    data, reason = REFUSED[name]
    path = tmp_path / f"{name}.tif"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=f"cannot read the image .*{name}.tif': .*({reason})") as error:
        read_channels(path, 4)
    assert str(error.value).isprintable()


def test_damaged_files_are_errors_or_pixels_never_anything_else():
    data, draw = tiff(pixels(4), planarconfig="contig", compression="zlib"), np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for place in draw.integers(0, len(data), 3):
            broken[place] = draw.integers(0, 256)
        try:
            assert read_channels(bytes(broken), 4).dtype == np.uint8
        except UnreadableImage as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("given", [(0,), (0, 1, 2), (5, 5), (0, 1, 1, 0), (1, 0)])
def test_ranges_that_are_none_are_refused(given):
    with pytest.raises(ValueError, match="expected --value-range"):
        ranges_of(given, 2)


def test_a_number_of_channels_has_limits():
    with pytest.raises(ValueError, match="expected 1 to 256 channels, got 0"):
        read_channels(b"", 0)


def test_a_pipe_is_refused_without_reading(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    for read in (lambda path: read_channels(path, 4), lambda path: read_stored(path, 4), read_preview):
        with pytest.raises(UnreadableImage, match="expected a regular file, got a folder, pipe"):
            read(tmp_path / "a.tif")


def test_a_preview_has_the_first_three_channels(tmp_path):
    values = pixels(5, np.uint8, 256)
    (tmp_path / "a.tif").write_bytes(multiband.encode_tiff(values))
    np.testing.assert_array_equal(read_preview(tmp_path / "a.tif").permute(1, 2, 0), values[..., :3])
    (tmp_path / "b.tif").write_bytes(multiband.encode_tiff(values[..., :2]))
    np.testing.assert_array_equal(read_preview(tmp_path / "b.tif")[2], values[..., 0])
    (tmp_path / "c.tif").write_bytes(b"II*\0broken")
    with pytest.raises(UnreadableImage, match=r"c\.tif"):
        read_preview(tmp_path / "c.tif")


def test_without_tifffile_one_line_says_what_to_install(monkeypatch):
    data = tiff(pixels(4), planarconfig="contig")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match="needs tifffile; run pip install tifffile imagecodecs"):
        read_channels(data, 4)


def test_each_channel_is_resized_as_pillow_resizes_rgb():
    values = pixels(3, np.uint8, 256)
    expected = np.asarray(Image.fromarray(values).resize((4, 4), Image.Resampling.BICUBIC))
    found = map_channels(values, lambda band: band.resize((4, 4), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, expected)
