"""Every kind of image file is read as the RGB image that a viewer shows, or rejected with a one-line error."""

import contextlib
import gc
import io
import os
import pickle
import random
import socket
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent))
from odd_images import encode, readable_images, refused_files, sample_image

from genviews_core import images
from genviews_core.images import ImageTooLarge, UnreadableImage, image_size, read_image, read_label_map, read_rgb

READABLE, REFUSED = readable_images(), refused_files()
NOT_THE_PICTURE = {"1.png", "1.pbm"}
pytestmark = pytest.mark.filterwarnings("ignore::genviews_core.pixel_range.PixelRangeWarning")


@pytest.mark.parametrize("name", [name for name in READABLE if "16" not in name and "I32" not in name])
def test_every_kind_is_read_as_the_image_in_rgb_or_gray(name):
    read, rgb = read_rgb(READABLE[name]), sample_image()
    assert read.mode == "RGB"
    expected = np.asarray(rgb, float)
    clear = np.asarray(rgb.convert("L"), float)[..., None] / 255
    if name.startswith("turned"):
        expected = np.asarray(ImageOps.exif_transpose(_stored(READABLE[name])), float)
    if name.startswith(("1", "L", "gray", "F")) or name == "LA.tif":
        expected = np.repeat(np.asarray(rgb.convert("L"), float)[..., None], 3, -1)
    if name.startswith(("LA", "RGBA")):
        expected = expected * clear + 255 * (1 - clear)
    if name in ("F-own.tif", "F-nan.tif"):
        low, high = expected.min(), expected.max()
        expected = (
            (expected - low) / (high - low) * 255 if name == "F-own.tif" else np.where(expected > 200, 0, expected)
        )
    assert np.abs(np.asarray(read, float) - expected).mean() < (128 if name in NOT_THE_PICTURE else 8)


def _stored(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_file_is_a_one_line_error_that_names_it(tmp_path, name):
    data, reason = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableImage, match=f"cannot read the image .*{name}': .*{reason}") as error:
        read_rgb(tmp_path / name)
    assert str(error.value).isprintable() and error.value.reason in str(error.value)
    with pytest.raises(UnreadableImage, match=reason):
        read_rgb(data)


def test_the_error_survives_a_worker_process():
    with pytest.raises(UnreadableImage) as error:
        read_rgb(b"")
    assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason


def test_no_file_runs_ghostscript(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for read in (read_rgb, read_label_map, image_size, lambda data: images.read_reduced(data, 8)):
        with pytest.raises(UnreadableImage):
            read(REFUSED["postscript.jpg"][0])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_undone_unless_asked_not_to(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(sample_image(), exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(read_rgb(data), turned)
    assert np.array_equal(read_rgb(data, upright=False), sample_image())
    assert images.read_reduced(data, 8)[1] == turned.size[::-1]
    assert image_size(data) == sample_image().size


def test_a_label_map_keeps_its_values():
    labels = np.arange(0, 250, dtype=np.uint8).reshape(10, 25)
    mask = Image.fromarray(labels)
    mask.putpalette(list(range(256)) * 3)
    for data in (encode(mask), encode(Image.fromarray(labels))):
        assert np.array_equal(read_label_map(data), labels)
    for data in (encode(sample_image()), READABLE["I16.png"]):
        with pytest.raises(UnreadableImage, match="one channel of 8 bits"):
            read_label_map(data)


def test_a_large_jpeg_is_read_at_reduced_size_and_otherwise_rejected(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 200 * 200)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 7), np.uint8))
    large = coarse.resize((400, 400), Image.Resampling.NEAREST)
    data = encode(large, "JPEG")
    with pytest.raises(ImageTooLarge, match="more than 40000 pixels"):
        read_rgb(data)
    assert images.read_reduced(data, 64)[0].size == (100, 100)
    small = np.asarray(large.resize((64, 64), Image.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(images.read_reduced(data, 64)[0].resize((64, 64)), float)[..., 0] - small).mean() < 4
    with pytest.raises(ImageTooLarge):
        images.read_reduced(encode(large, "JPEG", progressive=True), 64)


def test_pipes_sockets_devices_and_missing_files_are_rejected_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.jpg")
    Path("device.jpg").symlink_to("/dev/zero")
    Path("circle.jpg").symlink_to("circle.jpg")
    messages = []

    def read_all():
        for name in ("pipe.jpg", "socket.jpg", "device.jpg", ".", "circle.jpg", "missing.jpg"):
            with pytest.raises(UnreadableImage) as error:
                read_rgb(name)
            messages.append(str(error.value))

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    reader.join(timeout=5)
    server.close()
    assert len(messages) == 6, "reading hangs"
    assert all("regular file" in message for message in messages[:4])
    assert "symbolic links" in messages[4] and messages[5].endswith("no such file")


def test_a_tensor_is_the_central_square(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(sample_image()))
    assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(np.array(sample_image())).permute(2, 0, 1))
    square = np.asarray(sample_image().crop((8, 0, 32, 24)).resize((10, 10), Image.Resampling.BICUBIC), int)
    assert np.abs(read_image(tmp_path / "a.png", 10).permute(1, 2, 0).numpy() - square).max() <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the EXIF
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_broken_exif_does_not_lose_the_image(kind):
    draws, exif = random.Random(0), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for cut in (0, 3, 9):
        for _ in range(30):
            data = bytearray(exif.tobytes()[: -cut or None])
            for place in draws.choices(range(6, len(data)), k=4):
                data[place] = draws.randrange(256)
            assert set(read_rgb(encode(Image.new("RGB", (4, 8), "red"), kind, exif=bytes(data))).size) == {4, 8}


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "ppm", "webp", "jp2"])
def test_truncated_files_are_a_one_line_printable_error(tmp_path, suffix, kept):
    path = tmp_path / f"bad\nname.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UnreadableImage) as error:
        read_image(path, 8)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (2, 9)])
def test_thin_images_are_read_at_any_size(tmp_path, size):
    (tmp_path / "thin.png").write_bytes(encode(Image.new("RGB", size, (9, 80, 200))))
    assert read_image(tmp_path / "thin.png").shape == (3, size[1], size[0])
    assert read_image(tmp_path / "thin.png", 5)[:, 2, 2].tolist() == [9, 80, 200]


def test_the_pixel_limit_does_not_depend_on_pillow_settings(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for read in (read_rgb, read_label_map):
        with pytest.raises(ImageTooLarge, match="more than 178956970 pixels"):
            read(REFUSED["bomb.png"][0])
    assert Image.MAX_IMAGE_PIXELS is None


def test_a_refused_image_does_not_keep_its_readers_variables_alive(tmp_path):
    """A process group among them would end late, at exit; see genviews_core.distributed."""

    class Variable:
        pass

    def read() -> weakref.ref:
        variable = Variable()
        with contextlib.suppress(UnreadableImage):
            read_rgb(tmp_path / "missing.png")
        return weakref.ref(variable)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()
