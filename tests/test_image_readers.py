"""All libraries read an image file to the same pixels, or reject it in one line; no external program is started."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_layouts import draw_davis  # pyright: ignore[reportMissingImports]
from odd_images import POSTSCRIPT, encode, readable_images, refused_files  # pyright: ignore[reportMissingImports]
from PIL import Image

import pairdata
import viewgen
from benchmarks.foreground.masks import find_pairs
from genviews.evaluation.datasets import CenterCrop, CenterCropDataset, LoaderConfig
from genviews.evaluation.tiles import Tiles
from genviews.inspection.pictures import thumbnail
from genviews_core.listing import iter_images
from pairdata import FolderLoader, LabeledImages, index_images
from pairdata.decode import decode_square
from pairquality.images import read_batches
from pairquality.images import read_image as read_scored_image
from ssl_eval.coco import load_instances
from ssl_eval.coco.sampler import read_example
from ssl_eval.image_files import ReaderConfig, features_of_files, images_in, read_rgb
from ssl_eval.segmentation.voc import load_split
from ssl_eval.slides.slide_sets import Slide, tiles_of
from ssl_eval.video.davis import read_davis, read_mask

READABLE, REFUSED = readable_images(), refused_files()
OTHER_CHANNELS = {
    "2-channels.tif",
    "2-channels-8-bit.tif",
    "4-gray.tif",
    "5-planes.tif",
    "5-channels.tif",
    "RGB-and-2.tif",
    "gray-pages.tif",
}  # shown by thumbnails, which take the first three channels
READERS = {
    "pairdata": lambda path: np.asarray(pairdata.decode_rgb(path)),
    "viewgen": lambda path: viewgen.read_image(path).permute(1, 2, 0).numpy(),
    "pairquality": lambda path: read_scored_image(path).permute(1, 2, 0).numpy(),
    "ssl_eval": lambda path: np.asarray(read_rgb(path)),  # as stored: EXIF orientation is not applied
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning"),
    pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning"),
]


@pytest.fixture(autouse=True)
def no_program_is_run(tmp_path, monkeypatch):
    """Put a stub for Ghostscript on the path that records whether Pillow runs it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {folder}/ran\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    yield
    assert not (folder / "ran").exists(), "an image file started a program"


@pytest.mark.parametrize("name", READABLE)
def test_all_libraries_read_the_same_pixels(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(READABLE[name])
    pixels = {library: read(path) for library, read in READERS.items()}
    for library in ("viewgen", "pairquality", "ssl_eval"):
        if library == "ssl_eval" and name.startswith("turned") and name.endswith("jpg"):
            assert np.array_equal(pixels[library], np.asarray(Image.open(path)))
        else:
            assert np.array_equal(pixels[library], pixels["pairdata"]), library


@pytest.mark.parametrize("name", REFUSED)
def test_all_libraries_reject_invalid_images_in_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(REFUSED[name][0])
    lines, readers = set(), [*READERS.values(), lambda path: decode_square(path, 16)]
    if name in OTHER_CHANNELS:
        assert thumbnail(path, 16)
    else:
        readers.append(lambda path: thumbnail(path, 16))
    for read in readers:
        with pytest.raises(ValueError) as error:
            read(path)
        lines.add(str(error.value))
    assert len(lines) == 1 and lines.pop().isprintable()


def test_16_bit_images_keep_their_levels_in_every_library(tmp_path):
    path = tmp_path / "cells.png"
    path.write_bytes(READABLE["I16.png"])
    assert {len(np.unique(read(path))) for read in READERS.values()} == {256}


def test_postscript_in_data_sets_is_rejected(tmp_path):
    davis, voc = draw_davis(tmp_path / "davis", frames=4), tmp_path / "voc"
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("a\n")
    for path in ("JPEGImages/a.jpg", "SegmentationClass/a.png"):
        (voc / path).parent.mkdir()
        (voc / path).write_bytes(POSTSCRIPT)
    slide = tmp_path / "slide"
    slide.mkdir()
    (slide / "0.png").write_bytes(POSTSCRIPT)
    video = read_davis(davis)[0]
    for path in (video.frames[1], video.masks[1]):
        path.write_bytes(POSTSCRIPT)
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    tiles = Tiles(CenterCrop(8, 8, "bilinear"), plain, batch_size=1, workers=0, device=torch.device("cpu"))
    network = torch.nn.Flatten()
    reads = {
        "voc image": lambda: load_split(voc, "val").read(0),
        "tile": lambda: list(tiles.batches(Slide(name="slide", place=slide, label=0))),
        "frame": lambda: read_rgb(video.frames[1]),
        "mask": lambda: read_mask(video.masks[1]),
        "retrieval": lambda: features_of_files(network, tiles_of(slide), lambda _, image: image, ReaderConfig()),
        "coco": lambda: _coco(tmp_path / "coco"),
        "training": lambda: next(iter(FolderLoader(slide, batch_size=1, size=8))),
        "scores": lambda: _raise(next(read_batches(slide, ["0.png"], 8, batch_size=1, workers=1))[0][1]),
    }
    for name, read in reads.items():
        with pytest.raises(ValueError, match="not an image of a known format") as error:
            read()
        assert str(error.value).isprintable(), name
    (voc / "JPEGImages/a.jpg").write_bytes(encode(Image.new("RGB", (8, 8))))
    with pytest.raises(ValueError, match=r"SegmentationClass/a\.png': not an image"):
        load_split(voc, "val").read(0)


def _coco(folder: Path):
    (folder / "val2017").mkdir(parents=True)
    (folder / "val2017/1.jpg").write_bytes(POSTSCRIPT)
    shape = {"bbox": [1, 1, 2, 2], "area": 4, "segmentation": [[1, 1, 3, 1, 3, 3]], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **shape}],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return read_example(load_instances(folder / "instances.json", folder / "val2017"), 0, 8, 16)


def _raise(read: object) -> None:
    assert isinstance(read, ValueError)
    raise read


def test_hidden_files_are_skipped_by_every_reader(tmp_path):
    folder = tmp_path / "set"
    for name in ("a/1.png", "a/2.png", "a/._1.png", "a/.2.png", ".b/1.png", "._3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(Image.new("RGB", (8, 8))) if name.startswith("a/") else b"\0\5\x16\7")
    keys = ["a/1.png", "a/2.png"]
    assert list(index_images(folder).keys) == viewgen.list_images(folder) == list(iter_images(folder)) == keys
    assert images_in(folder / "a") == tiles_of(folder / "a") == [folder / key for key in keys]
    davis = draw_davis(tmp_path / "davis", frames=4)
    frames = [video.frames for video in read_davis(davis)]
    for video in ("slide", "rise"):
        for path in (f"JPEGImages/480p/{video}/._00000.jpg", f"Annotations/480p/{video}/._00000.png"):
            (davis / path).write_bytes(b"\0\5\x16\7")
        (davis / f"JPEGImages/480p/{video}/.DS_Store").write_bytes(b"Bud1")
    assert [video.frames for video in read_davis(davis)] == frames
    for path in ("images/x.jpg", "masks/x.png", "images/._x.jpg", "masks/._x.png"):
        (tmp_path / "ecssd" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ecssd" / path).touch()
    assert [image.name for image, _ in find_pairs(tmp_path / "ecssd")] == ["x.jpg"]


def test_thin_image_is_center_cropped_in_little_memory(tmp_path, monkeypatch):
    path, made, resize = tmp_path / "spacer.png", [], Image.Image.resize
    Image.new("RGB", (4000, 1), (9, 80, 200)).save(path)

    def watched(image, size, *args, **options):
        made.append(size[0] * size[1])
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    centers = {
        "pairdata": lambda: decode_square(path, 64, fit="center", resize=73)[0],
        "pairdata, whole": lambda: decode_square(path, 64)[0],
        "apps/evaluate": lambda: CenterCrop(64, 73, "bicubic")(str(path))[0],
        "viewgen": lambda: viewgen.read_image(path, 64).permute(1, 2, 0).numpy(),
        "pairquality": lambda: read_scored_image(path, 64).permute(1, 2, 0).numpy(),
    }
    for name, read in centers.items():
        made.clear()
        assert np.array_equal(read(), np.full((64, 64, 3), (9, 80, 200))), name
        assert max(made) == 64 * 64, name


def test_online_knn_reads_images_like_evaluation(tmp_path):
    """Includes large JPEGs, which training decodes at a half or a quarter of their size."""
    from ssl_eval import TransformConfig
    from sslzoo import DistContext

    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(noise).resize((600, 400)).save(tmp_path / "a/1.jpg")
    mean, std = (0.5,) * 3, (0.25,) * 3
    (tmp_path / "a/2.png").write_bytes(READABLE["I16.png"])
    scaled = (0.0, 8000.0)
    ((online, _, _),) = LabeledImages(tmp_path, size=32, resize=37, mean=mean, std=std, value_range=scaled)
    worker = DistContext(rank=0, world_size=1, device=torch.device("cpu"))
    prepared, reading = TransformConfig(size=32, resize=37), LoaderConfig(mean=mean, std=std, value_range=scaled)
    ((evaluated, _, _),) = CenterCropDataset(index_images(tmp_path), prepared, reading, batch_size=2, context=worker)
    assert torch.equal(online, evaluated) and online[1].max() < (4300 / 8000 - 0.5) / 0.25 + 0.02
