"""PASCAL VOC's layout, and the images that a segmentation head is trained and tested on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image", reason="genviews-ssl-eval[images] is not installed")

from ssl_eval.segmentation.data import TestImages, TrainingCrops, distorted, training_crop  # noqa: E402  # noqa: E402
from ssl_eval.segmentation.training import SegmentationProtocol  # noqa: E402
from ssl_eval.segmentation.voc import load_split  # noqa: E402

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PROTOCOL = SegmentationProtocol(steps=2, batch_size=4, crop=24, short=24, stride=16, distort=False)


def write(root: Path, name: str, mask: np.ndarray, *, mode: str = "P", size: tuple[int, int] | None = None) -> None:
    """An image whose values are 40 times the classes, and its palette mask."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    grey = Image.fromarray((mask * 40).astype(np.uint8)).convert("RGB")
    grey.resize(size or grey.size).save(root / f"JPEGImages/{name}.jpg", quality=100)
    kept = Image.fromarray(mask)
    if mode == "P":
        kept.putpalette(list(range(256)) * 3)
    kept.convert(mode).save(root / f"SegmentationClass/{name}.png")


def blocks(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """Blocks of 8 px of the classes 0 to 3."""
    return np.random.default_rng(seed).integers(0, 4, (height // 8, width // 8), np.uint8).repeat(8, 0).repeat(8, 1)


def voc(folder: Path, count: int = 3) -> Path:
    root = folder / "VOCdevkit/VOC2012"
    for number in range(count):
        write(root, f"2007_{number:06}", blocks(number))
    lines = "".join(f"2007_{number:06}\n" for number in range(count))
    (root / "ImageSets/Segmentation/train.txt").write_text(lines)
    return root


def test_images_and_masks_are_found(tmp_path):
    root = voc(tmp_path)
    for place in (root, root.parent, tmp_path):
        found = load_split(place, "train")
        assert len(found) == 3 and found.root == root
    image, mask = found.read(1)
    assert image.size == (56, 40) and np.array_equal(mask, blocks(1))


def test_mistakes_are_told(tmp_path):
    root = voc(tmp_path)
    with pytest.raises(ValueError, match="expected VOC2012's layout"):
        load_split(tmp_path / "elsewhere", "train")
    with pytest.raises(ValueError, match=r"expected a list of images at .*Segmentation/val.txt"):
        load_split(root, "val")
    lists = root / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match="expected names of images"):
        load_split(root, "val")
    (lists / "val.txt").write_text("2007_000000\nlost\n")
    with pytest.raises(ValueError, match=r"2 files listed in .* are missing, first .*lost.jpg"):
        load_split(root, "val")
    write(root, "small", blocks(0), size=(30, 30))
    write(root, "coloured", blocks(0), mode="RGB")
    write(root, "many", np.full((8, 8), 37, np.uint8))
    write(root, "broken", blocks(0))
    write(root, "spacer", np.zeros((1, 65), np.uint8))
    (root / "JPEGImages/broken.jpg").write_bytes(b"no image")
    told = {
        "small": r"small.png with 56 x 40 px, its image 30 x 30",
        "coloured": "expected one channel of 8 bits, numbers and not their colors, got pixels of mode RGB",
        "many": r"classes 0 to 20 in .*many.png, got 37; correct it, or set the number of classes to 38",
        "spacer": r"spacer.jpg: expected an aspect ratio of at most 64, got 65 x 1 px; leave it out",
        "broken": r"cannot read the image .*broken.jpg'",
    }
    for name, line in told.items():
        (lists / "one.txt").write_text(name)
        with pytest.raises(ValueError, match=line) as error:
            load_split(root, "one").read(0)
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=line):
            list(TestImages(load_split(root, "one"), PROTOCOL, PLAIN))
    assert load_split(root, "train", num_classes=4).read(0)[1].max() == 3
    (lists / "one.txt").write_text("many")
    assert load_split(root, "one", num_classes=38).read(0)[1].max() == 37


def test_crops_show_what_their_masks_say():
    """Away from the blocks' edges the values are 40 times the class, whatever the scale, the place and the flip."""
    mask = blocks(5, 64, 64)
    image = Image.fromarray(mask * 40).convert("RGB")
    for seed in range(30):
        protocol = replace(PROTOCOL, short=64)
        crop, classes = training_crop(image, mask, protocol, PLAIN, np.random.default_rng(seed))
        assert crop.shape == (3, 24, 24) and classes.shape == (24, 24)
        counted = classes != 255
        assert counted.any() and (crop[:, ~counted] == 0).all()
        off = (crop[0] * 255 - classes * 40.0).abs()[counted]
        assert off.median() < 10 and (off > 20).float().mean() < 0.2
    small = training_crop(image, mask, replace(PROTOCOL, scales=(0.5, 0.5)), PLAIN, np.random.default_rng(0))[1]
    assert (small[:12, :12] != 255).all() and (small[12:] == 255).all() and (small[:, 12:] == 255).all()


def test_crops_of_one_class_are_drawn_again():
    mask = np.zeros((200, 200), np.uint8)
    mask[:100, :100] = 1
    image = Image.fromarray(mask).convert("RGB")
    shares = {}
    for max_share in (0.75, 1.1):
        protocol = replace(PROTOCOL, max_share=max_share, short=200, crop=60, scales=(1.0, 1.0))
        crops = [training_crop(image, mask, protocol, PLAIN, np.random.default_rng(seed))[1] for seed in range(40)]
        shares[max_share] = np.mean([crop.float().mean().item() in (0.0, 1.0) for crop in crops])
    assert shares[0.75] < 0.2 < 0.3 < shares[1.1]


def test_distortion_keeps_places_and_is_sometimes_nothing():
    pixels = np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8)
    found = [distorted(pixels, np.random.default_rng(seed)) for seed in range(64)]
    assert all(each.shape == pixels.shape and each.dtype == np.uint8 for each in found)
    near = [int(np.abs(each.astype(int) - pixels).max()) for each in found]
    assert sum(each <= 6 for each in near) in range(1, 15)  # one of sixteen; PIL's HSV rounds
    grey = np.full((2, 2, 3), 100, np.uint8)
    for seed in range(30):
        each = distorted(grey, np.random.default_rng(seed))
        assert len(np.unique(each)) == 1 and 0.5 * 68 - 1 <= each[0, 0, 0] <= 1.5 * 132 + 1


def test_batches_depend_on_seed_and_step_alone(tmp_path):
    images = load_split(voc(tmp_path), "train")
    alone = TrainingCrops(images, PROTOCOL, PLAIN, seed=1)
    whole = list(alone.batches(0, 3))
    assert whole[0][0].shape == (4, 3, 24, 24) and len(whole) == 3
    (third,) = alone.batches(2, 3)
    assert torch.equal(third[0], whole[2][0])
    parts = [
        list(TrainingCrops(images, PROTOCOL, PLAIN, seed=1, rank=rank, world_size=2).batches(0, 3)) for rank in (0, 1)
    ]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert all(torch.equal(torch.cat([first[k], second[k]]), batch[k]) for k in (0, 1))
    other = next(TrainingCrops(images, PROTOCOL, PLAIN, seed=2).batches(0, 1))
    assert not torch.equal(other[0], whole[0][0])
    with pytest.raises(ValueError, match="multiple of the 3 processes, got 4"):
        TrainingCrops(images, PROTOCOL, PLAIN, seed=1, world_size=3)


def test_every_image_is_trained_on_once_an_epoch_and_tested_on_once(tmp_path, monkeypatch):
    images = load_split(voc(tmp_path, 4), "train")
    seen: list[int] = []
    read = type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, row: seen.append(row) or read(self, row))
    list(TrainingCrops(images, PROTOCOL, PLAIN, seed=0).batches(0, 2))
    assert sorted(seen[:4]) == sorted(seen[4:]) == [0, 1, 2, 3]
    (image, mask), *_ = TestImages(images, replace(PROTOCOL, short=80), PLAIN)
    assert image.shape == (3, 80, 112) and mask.shape == (40, 56)
    shared = [list(TestImages(images, PROTOCOL, PLAIN, rank=rank, world_size=3)) for rank in range(3)]
    assert [len(each) for each in shared] == [2, 1, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_test_images_are_skipped(tmp_path, workers):
    root = voc(tmp_path)
    (root / "JPEGImages/2007_000000.jpg").write_bytes(b"no image")
    (root / "SegmentationClass/2007_000002.png").write_bytes(b"no image")
    images, lines = load_split(root, "train"), []
    ((_, mask),) = TestImages(images, PROTOCOL, PLAIN, workers=workers, on_unreadable=lines.append)
    assert np.array_equal(mask, blocks(1)) and len(lines) == 2
    with pytest.raises(ValueError, match=r"cannot read the image .*2007_000000"):
        list(TestImages(images, PROTOCOL, PLAIN, workers=workers))
    write(root, "2007_000001", blocks(1) + 30)  # invalid content is an error, unlike an unreadable file
    with pytest.raises(ValueError, match="got 33"):
        list(TestImages(images, PROTOCOL, PLAIN, workers=workers, on_unreadable=lines.append))


def test_masks_are_checked_before_training(tmp_path):
    root = voc(tmp_path)
    images = load_split(root, "train")
    images.check_masks()
    (root / "SegmentationClass/2007_000000.png").write_bytes(b"no image")
    images.check_masks()  # unreadable files are reported when they are used
    for number in range(3):
        write(root, f"2007_{number:06}", np.full((40, 56), 255, np.uint8))
    with pytest.raises(ValueError, match=r"expected pixels with a class in the masks of .*, got 255 \(void\) alone"):
        images.check_masks()
    write(root, "2007_000002", blocks(1) + 30)
    with pytest.raises(ValueError, match=r"2007_000002\.png, got 33"):
        images.check_masks()
