"""Crop boxes against torchvision's draws, and cuts against PIL's."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from pairdata import center_boxes, crop, sample_crops
from pairdata.crops import crop_by_matrices, crop_each, whole_pixels
from pairdata.decode import decode_square

ECSSD = Path(__file__).parents[4] / "shared" / "data" / "ecssd-300.tar"
WAYS = [crop_each, crop_by_matrices]


def _torchvision(height, width, scale, ratio, count):
    """Boxes in pixels, (top, left, height, width), float [count, 4]."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = torch.empty(1, height, width)
        boxes = [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)]
    return np.array(boxes, float)


def _ours(height, width, scale, ratio, count, seed=0):
    sizes = torch.tensor([[height, width]]).repeat(count, 1)
    boxes = sample_crops(sizes, scale=scale, ratio=ratio, generator=torch.Generator().manual_seed(seed))
    return boxes.double().numpy() * [height, width, height, width]


def _kolmogorov_smirnov(a, b):
    places = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(x), places, side="right") / len(x) for x in (a, b)]
    return np.abs(shares[0] - shares[1]).max()


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (32, 32, (0.2, 1.0)),
        (375, 500, (0.08, 1.0)),
        (500, 200, (0.2, 1.0)),
        (90, 400, (0.3, 1.0)),
        (240, 320, (0.05, 0.25)),
    ],
)
def test_boxes_are_distributed_as_torchvisions(height, width, scale):
    count, ratio = 3000, (3 / 4, 4 / 3)
    ours, theirs = _ours(height, width, scale, ratio, count), _torchvision(height, width, scale, ratio, count)
    assert np.abs(ours - ours.round()).max() < 1e-3  # whole pixels of the original
    ours = ours.round()
    measures = {"area": lambda b: b[:, 2] * b[:, 3], "aspect": lambda b: b[:, 3] / b[:, 2]}
    for i, name in enumerate(("top", "left", "height", "width")):
        measures[name] = lambda b, i=i: b[:, i]
    for name, measure in measures.items():
        # Two samples of one distribution lie farther apart with probability 1e-5 (Smirnov).
        assert _kolmogorov_smirnov(measure(ours), measure(theirs)) < 2.47 * (2 / count) ** 0.5, name


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (7, 31), (31, 7), (1, 1)])
def test_where_no_attempt_fits_the_box_is_torchvisions_central_one(height, width):
    scale, ratio = (0.95, 1.0), (3 / 4, 4 / 3)
    assert np.array_equal(_ours(height, width, scale, ratio, 5).round(), _torchvision(height, width, scale, ratio, 5))


def test_each_image_is_cropped_in_its_own_geometry():
    sizes = torch.tensor([[100, 100], [50, 400], [3, 2]]).repeat(200, 1)
    boxes = sample_crops(sizes, generator=torch.Generator().manual_seed(0))
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 1 + 1e-6).all()
    pixels = boxes[:, 2:] * sizes
    assert ((pixels[0::3].prod(1) / 1e4 - 0.6).abs() < 0.42).all()
    assert (pixels[1::3, 1] / pixels[1::3, 0] < 4 / 3 + 0.05).all()


def test_center_boxes_are_square_in_the_original():
    sizes = torch.tensor([[100, 200], [80, 40]])
    boxes = center_boxes(sizes, fraction=0.5) * sizes.repeat(1, 2)
    torch.testing.assert_close(boxes, torch.tensor([[25.0, 75, 50, 50], [30, 10, 20, 20]]))


@pytest.mark.parametrize("cut", WAYS)
@pytest.mark.parametrize(
    ("size", "height", "width"), [(32, 32, 32), (24, 40, 17), (64, 20, 9), (16, 64, 64), (5, 1, 1)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_on_whole_pixels_equals_pil(cut, size, height, width, interpolation):
    # PIL cuts off where the cubic overshoots after the first of two passes, whose order is its own affair.
    low, high = (80, 176) if interpolation == "bicubic" else (0, 256)
    pixels = np.random.default_rng(0).integers(low, high, (64, 64, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).crop((7, 0, 7 + width, height) if width < 57 else (0, 0, width, height))
    expected = np.asarray(expected.resize((size, size), Image.Resampling[interpolation.upper()]), int)
    box = torch.tensor([[0, 7 if width < 57 else 0, height, width]]) / 64
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    result = cut(image, box, size, torch.tensor([0]), torch.tensor([False]), interpolation)[0]
    result = result.permute(1, 2, 0).int().numpy()
    assert np.abs(result - expected).max() <= (2 if interpolation == "bicubic" else 1)


def test_rows_choose_the_image_and_flip_mirrors():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=generator)
    rows, flip = torch.tensor([2, 0, 2, 1]), torch.tensor([True, False, False, True])
    boxes = sample_crops(torch.full((4, 2), 20), generator=generator)
    for cut in WAYS:
        together = cut(images, boxes, 12, rows, flip)
        for i, row in enumerate(rows.tolist()):
            alone = cut(images[row : row + 1], boxes[i : i + 1], 12, torch.tensor([0]), torch.tensor([False]))[0]
            assert torch.equal(together[i], alone.flip(-1) if flip[i] else alone)
    assert torch.equal(crop(images, boxes, 12, rows=rows, flip=flip), crop_each(images, boxes, 12, rows, flip))
    assert torch.equal(crop(images, boxes[:3], 12), crop_each(images, boxes[:3], 12, torch.arange(3), flip[:3] & False))


def test_a_box_has_at_least_one_pixel_and_stays_inside():
    boxes = torch.tensor([[0.999, 0.0, 0.001, 1.0], [0.5, 0.5, 0.001, 0.001], [0.0, 0.7, 1.0, 0.3]])
    top, left, bottom, right = whole_pixels(boxes, 10).unbind(1)
    assert ((bottom > top) & (right > left)).all()
    assert ((top >= 0) & (left >= 0) & (bottom <= 10) & (right <= 10)).all()


@pytest.mark.skipif(not ECSSD.exists(), reason="the ECSSD images are not beside the repository")
@pytest.mark.parametrize("cut", WAYS)
def test_real_photographs_squashed_and_cut_stay_close_to_a_cut_of_the_original(cut):
    generator = torch.Generator().manual_seed(0)
    ratios = []
    with tarfile.open(ECSSD) as archive:
        members = sorted(m.name for m in archive.getmembers() if m.name.endswith(".jpg"))[:40]
        for name in members:
            data = archive.extractfile(name).read()
            square, (height, width) = decode_square(data, 288)
            box = sample_crops(torch.tensor([[height, width]]), generator=generator)
            top, left, tall, wide = (box[0] * torch.tensor([height, width] * 2)).round().int().tolist()
            original = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + wide, top + tall))
            expected = np.asarray(original.resize((224, 224), Image.Resampling.BILINEAR), float)
            image = torch.from_numpy(square.copy()).permute(2, 0, 1)[None]
            result = cut(image, box, 224, torch.tensor([0]), torch.tensor([False]))[0].permute(1, 2, 0).numpy()
            ratios.append(10 * np.log10(255**2 / ((result - expected) ** 2).mean()))
    assert np.mean(ratios) > 33
