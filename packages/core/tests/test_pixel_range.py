"""Pixels of more than 8 bits keep the levels that they use."""

import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
from odd_images import HEIGHT, WIDTH, deep, encode, png, readable_images, tiff

from genviews_core import pixel_range
from genviews_core.images import read_rgb
from genviews_core.pixel_range import PixelRangeWarning, own_range

FILES = readable_images()
COLOR = np.stack([deep(), deep(500, 2000), deep(4000, 300)], -1)
SCALED = (COLOR - 300.0) * 255 / 4000


@pytest.fixture(autouse=True)
def fresh_run():
    pixel_range._reported[0] = 0


@pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
@pytest.mark.parametrize("name", ["I16.png", "I16.tif", "I16B.tif", "I16-signed.tif", "I32.tif"])
def test_12_bits_in_a_larger_file_keep_256_levels(name):
    read = np.asarray(read_rgb(FILES[name]))
    assert np.abs(read - ((deep() - 300.0) * 255 / 4000)[..., None]).max() <= 0.5


@pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
@pytest.mark.parametrize("name", ["RGB16.png", "RGB16.tif", "RGBA16.png", "RGBA16.tif", "LA16.png"])
def test_12_bit_colors_keep_their_levels_and_are_composited_over_white(name):
    expected = SCALED if "RGB" in name else np.repeat(((deep() - 300.0) * 255 / 4000)[..., None], 3, -1)
    opacity = 1.0 if name.startswith("RGB16") else 40_000 / 65_535
    read = np.asarray(read_rgb(FILES[name]), float)
    assert np.abs(read - (expected * opacity + 255 * (1 - opacity))).max() <= 1.6


@pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_16_bit_gray_over_the_full_range_is_divided_by_257(options):
    values = deep(0, 65_535)
    for data in (FILES["I16-full.png"], encode(Image.fromarray(values), "TIFF", **options)):
        assert np.array_equal(np.asarray(read_rgb(data))[..., 0], (values / 257).round())
    assert np.abs(np.asarray(read_rgb(FILES["RGB16-full.png"])) - COLOR * 15 / 257).max() <= 0.5


@pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
def test_a_transparent_level_is_white():
    read = np.asarray(read_rgb(FILES["I16-transparent.png"]))[..., 0]
    assert (read[deep() == 300] == 255).all() and read[0, 3] < 10
    color = png(COLOR, 2, (b"tRNS", COLOR[0, 0].astype(">u2").tobytes()))
    read = np.asarray(read_rgb(color))
    assert (read[0, 0] == 255).all() and np.abs(read[0, 1] - SCALED[0, 1]).max() <= 0.5


def test_ranges():
    assert own_range(deep()) == (300, 4300)
    assert own_range(deep(0, 40_000)) == (0, 65_535)
    assert own_range(deep(100, 200)) == (0, 255)
    assert own_range(deep(298, 303)) == (298, 553)  # an empty image stays empty
    assert own_range(np.full((2, 2), 5000, np.uint16)) == (5000, 5255)
    assert own_range(np.array([[-1.0, np.nan, np.inf, 3.0]])) == (-1, 3)
    assert own_range(np.array([[0.0, 0.5]])) == (0, 1) and own_range(np.array([[0.0, 200]])) == (0, 255)


@pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")
def test_a_given_range_scales_all_images_alike():
    for name in ("I16.png", "I16.tif", "RGB16.png"):
        values = COLOR if "RGB" in name else deep()[..., None]
        read = np.asarray(read_rgb(FILES[name], value_range=(1000.0, 5000.0)), float)
        assert np.abs(read - ((values - 1000.0) * 255 / 4000).clip(0, 255)).max() <= 0.5
    assert np.array_equal(read_rgb(FILES["RGB.png"], value_range=(1000.0, 5000.0)), read_rgb(FILES["RGB.png"]))
    with pytest.raises(ValueError, match="increasing range of values, got 5 to 5"):
        read_rgb(FILES["I16.png"], value_range=(5.0, 5.0))


class Deep(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_rgb(FILES["I16.png"])
        return len(caught)


def test_the_warning_is_issued_once_per_run_among_threads_and_forked_workers():
    with pytest.warns(
        PixelRangeWarning, match=r"300 to 4300, its own range, became 0 to 255; give value_range"
    ) as caught:
        threads = [threading.Thread(target=read_rgb, args=(FILES["I16.png"],)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(caught) == 1
    pixel_range._reported[0] = 0
    loader = DataLoader(Deep(), num_workers=2, batch_size=None, multiprocessing_context="fork")
    assert 1 <= sum(loader) <= 2 and sum(loader) == 0  # two workers may begin in the same moment
    read_rgb(FILES["I16.png"])


def test_a_16_bit_planar_tiff_is_rejected():
    with pytest.raises(ValueError, match="interleaved"):
        read_rgb(tiff(np.zeros((HEIGHT, WIDTH, 3), np.uint16), 2, planes=True))
