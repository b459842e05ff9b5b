"""Images of other than three channels: loaded, augmented and measured like RGB, channel by channel."""

import numpy as np
import pytest
import torch
from PIL import Image

import pairdata
from genviews_core.multiband import encode_tiff
from pairdata import Augment, FolderLoader
from pairdata.decode import decode_square

pytestmark = pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
PLAIN = {"flip": 0.0, "jitter": None, "gray_p": 0.0, "blur_p": 0.0}


@pytest.fixture
def tiles(tmp_path):
    """Return tiles(channels): a folder of 16-bit TIFFs in two classes; values of channel c are up to 1000 (c + 1)."""
    pytest.importorskip("tifffile")

    def tiles(channels, count=8, top=1000):
        draw = np.random.default_rng(0)
        for number in range(count):
            pixels = draw.integers(0, top * (1 + np.arange(channels)), (20, 24, channels)).astype(np.uint16)
            path = tmp_path / "tiles" / "ab"[number % 2] / f"{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_tiff(pixels))
        return tmp_path / "tiles"

    return tiles


@pytest.mark.parametrize("fit", ["resize", "center"])
@pytest.mark.parametrize("side", [16, 33])
def test_every_channel_is_decoded_as_a_channel_of_rgb(fit, side, tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    expected, original = decode_square(tmp_path / "a.png", side, fit=fit)
    Image.fromarray(np.dstack([rgb, rgb[..., 0]]), "RGBA").save(tmp_path / "b.png")
    found, same = decode_square(tmp_path / "b.png", side, fit=fit, channels=4)
    np.testing.assert_array_equal(found, np.dstack([expected, expected[..., 0]]))
    assert original == same == (40, 30)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_batches_have_the_channels_of_the_files(channels, cache_bytes, tiles):
    root, size, ranges = tiles(channels), 16, (0, 1000.0 * channels)
    loader = FolderLoader(
        root, batch_size=4, size=size, channels=channels, value_range=ranges, cache_bytes=cache_bytes, shuffle=False
    )
    for epoch in range(2):
        for batch in loader.epoch(epoch):
            assert batch.real.shape == (4, channels, size, size)
            for row, place in enumerate(batch.index.tolist()):
                square, _ = decode_square(loader.index.path(place), size, channels=channels, value_range=ranges)
                np.testing.assert_array_equal(batch.real[row].permute(1, 2, 0), square)
    assert not loader.failures


def test_views_have_the_channels_of_their_images(tiles, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root, views = tiles(4, count=4), tmp_path / "views"
    keys = [f"{folder}/{number}.tif" for number, folder in enumerate("abab")]
    for number, key in enumerate(keys):
        path = views / f"{key}.0.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_tiff(np.full((16, 16, 4), [1, 2, 3, number], np.uint8)))
    rows = {"key": keys, "k": [0] * 4, "path": [f"{key}.0.tif" for key in keys]}
    pq.write_table(pa.table(rows | {"alpha": pa.nulls(4, pa.float64()), "partner_key": pa.nulls(4, pa.string())}),
                   views / "manifest.parquet")  # fmt: skip
    loader = FolderLoader(root, batch_size=4, size=16, channels=4, views=views)
    batch = next(iter(loader))
    assert batch.views.shape == (4, 1, 4, 16, 16) and bool(batch.view_exists.all())
    numbers = [int(loader.index.key(place)[2]) for place in batch.index.tolist()]
    assert batch.views[:, 0, :, 0, 0].tolist() == [[1, 2, 3, number] for number in numbers]


def test_files_of_another_number_of_channels_are_listed(tiles):
    loader = FolderLoader(tiles(4), batch_size=4, size=16, channels=5)
    with pytest.raises(pairdata.UnreadableImage, match="expected 5 channels, got 4; give --channels 4"):
        next(iter(loader))


@pytest.mark.parametrize("given", [{"channels": 0}, {"channels": 4, "value_range": (0, 1, 2)}])
def test_invalid_channels_are_refused_before_any_file_is_read(given, tiles):
    with pytest.raises(ValueError, match=r"expected (1 to 256 channels|--value-range)"):
        FolderLoader(tiles(4), batch_size=4, **given)


@pytest.mark.parametrize("channels", [1, 4, 5])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_flips_blur_and_solarize_treat_every_channel_alike(channels, interpolation):
    images = torch.randint(256, (6, 3, 40, 40), dtype=torch.uint8)
    sizes, shared = torch.full((6, 2), 40), {"interpolation": interpolation, "blur_p": 0.5, "solarize_p": 0.5}
    rgb = Augment(size=24, jitter=None, gray_p=0.0, mean=(0.0,) * 3, std=(1.0,) * 3, **shared)
    many = Augment(size=24, jitter=None, gray_p=0.0, mean=(0.0,) * channels, std=(1.0,) * channels, **shared)
    draws = rgb.draw(sizes, torch.Generator().manual_seed(0))
    drawn = many.draw(sizes, torch.Generator().manual_seed(0))
    assert torch.equal(draws.boxes, drawn.boxes) and torch.equal(draws.blur, drawn.blur)
    bands = torch.stack([images[:, band % 3] for band in range(channels)], 1)
    expected = rgb.apply(images, draws)
    expected = torch.stack([expected[:, band % 3] for band in range(channels)], 1)
    torch.testing.assert_close(many.apply(bands, draws), expected, atol=1.5 / 255, rtol=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_brightness_and_contrast_are_drawn_for_every_channel(channels):
    images = torch.randint(60, 120, (5, channels, 16, 16), dtype=torch.uint8)
    full = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    augment = Augment(
        size=16, **full, **(PLAIN | {"jitter": (0.5, 0.5, 0.0, 0.0)}), jitter_p=1.0, mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )  # fmt: skip
    draws = augment.draw(torch.full((5, 2), 16), torch.Generator().manual_seed(0))
    assert draws.factors.shape == (5, 4, channels)
    found = augment.apply(images, draws)
    values = images.float() / 255
    for row in range(5):
        from itertools import permutations

        order = list(permutations(range(4)))[int(draws.order[row])]
        for band in range(channels):
            expected, (brightness, contrast) = values[row, band], draws.factors[row, :2, band]
            for step in order:
                if step == 0:
                    expected = (expected * brightness).clamp(0, 1)
                if step == 1:
                    expected = (expected * contrast + (1 - contrast) * expected.mean()).clamp(0, 1)
            torch.testing.assert_close(found[row, band], expected)


@pytest.mark.parametrize("given", [{"gray_p": 0.2, "jitter": None}, {"jitter": (0.4, 0.4, 0.4, 0.0), "gray_p": 0.0}])
def test_operations_of_rgb_are_refused_for_other_channels(given):
    with pytest.raises(ValueError, match="expected no saturation, hue and grayscale for 4 channels"):
        Augment(size=16, mean=(0.5,) * 4, std=(0.5,) * 4, **given)


def test_images_and_normalization_have_the_same_channels():
    with pytest.raises(ValueError, match="expected mean and std of as many channels, got 4 and 3"):
        Augment(size=16, mean=(0.5,) * 4)
    augment = Augment(size=16, mean=(0.5,) * 4, std=(0.5,) * 4, **PLAIN)
    with pytest.raises(ValueError, match="expected images of 4 channels, as mean and std have, got 3"):
        augment(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.full((2, 2), 16), torch.Generator())


def test_statistics_are_those_of_the_scaled_values(tiles):
    root = tiles(3 + 1)
    found = pairdata.channel_statistics(root, 4)
    assert found == pairdata.channel_statistics(root, 4)
    assert found.value_range is not None
    for band in range(4):
        low, high = found.value_range[2 * band : 2 * band + 2]
        assert 0 <= low < 0.01 * 1000 * (band + 1) and 0.98 < high / (1000 * (band + 1)) <= 1
    np.testing.assert_allclose(found.mean, 0.5, atol=0.02)
    np.testing.assert_allclose(found.std, 12**-0.5, atol=0.02)
    given = pairdata.channel_statistics(root, 4, value_range=(0, 4000))
    assert given.value_range == (0, 4000) * 4
    np.testing.assert_allclose(given.mean, np.array([1, 2, 3, 4]) / 8, atol=0.02)


def test_statistics_of_8_bits_need_no_range(tmp_path):
    pytest.importorskip("tifffile")
    (tmp_path / "a.tif").write_bytes(encode_tiff(np.full((8, 8, 2), [51, 102], np.uint8)))
    found = pairdata.channel_statistics(tmp_path, 2)
    assert found == pairdata.ChannelStatistics(value_range=None, mean=(0.2, 0.4), std=(1.0, 1.0))


def test_labeled_images_have_the_channels_of_their_normalization(tiles):
    options = {"size": 16, "value_range": (0, 4000), "batch_size": 4}
    loader = pairdata.LabeledImages(tiles(4), mean=(0.0,) * 4, std=(1.0,) * 4, **options)
    images, labels, _ = next(iter(loader))
    assert images.shape == (4, 4, 16, 16) and set(labels.tolist()) <= {0, 1} and loader.classes == ("a", "b")
