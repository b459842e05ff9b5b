import errno
import json
import os
import random
import socket
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from viewgen import UnreadableImage, list_images, read_image
from viewgen.images import MAX_PIXELS, iter_images, key_path
from viewgen.key_list import read_key_list

ODD_NAMES = ("a b.png", "ü/日本.png", "new\nline.png", 'quo"te\\.png', "%41.png", "-n.png", "~", "trailing .png")


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def test_lists_nested_and_linked_folders_once_without_running_in_circles(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    red = Image.new("RGB", (4, 4), "red")
    for name in ("b/c/1.JPG", "a.png", "b/.hidden.png", "b/notes.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix == ".txt" else red.save(path, format="PNG")
    save(elsewhere / "x.png", red)
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    assert list_images(root) == ["a.png", "b/c/1.JPG", "linked/x.png"]


def test_says_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        list_images(tmp_path / "missing")
    with pytest.raises(ValueError, match="no image"):
        list_images(tmp_path)


@pytest.mark.parametrize("key", ["../x.png", "/etc/x.png", "a/../../x.png", "", "a\0.png", "caf\udce9.png"])
def test_refuses_keys_that_leave_the_folder_or_fit_no_manifest(tmp_path, key):
    with pytest.raises(UnreadableImage, match="refused") as error:
        key_path(tmp_path, key)
    assert str(error.value).isprintable()
    str(error.value).encode()


def test_the_order_is_that_of_the_whole_keys(tmp_path):
    draws = random.Random(0)
    keys = {"".join(draws.choices("a-/.0Aé\uffff\U0001f600", k=6)) + ".png" for _ in range(500)}
    keys = {key for key in keys if not any(part.startswith(".") or not part for part in key.split("/"))}
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    assert sum("/" in key for key in keys) > 50
    assert list_images(tmp_path) == sorted(keys) == sorted(keys, key=str.encode)


def test_listing_holds_one_folder_at_a_time(tmp_path):
    for folder in range(10):
        (tmp_path / f"{folder:02d}").mkdir()
        for name in range(200):
            (tmp_path / f"{folder:02d}" / f"{name:0100d}.png").touch()
    tracemalloc.start()
    count = sum(1 for _ in iter_images(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2_000
    assert peak < 160_000  # all names together take 320 kB


def test_deep_folders_are_listed(tmp_path):
    folder = str(tmp_path)
    for _ in range(1200):  # deeper than Python's calls may go
        folder += "/d"
        os.mkdir(folder)  # noqa: PTH102 (pathlib's would call itself)
    with open(folder + "/x.png", "wb"):  # noqa: PTH123
        keys = list_images(tmp_path)
    os.unlink(folder + "/x.png")  # noqa: PTH108
    os.removedirs(folder)  # pytest's own removal would call itself too
    assert keys == ["d/" * 1200 + "x.png"]


def test_odd_names_are_listed_read_and_kept_in_json(tmp_path):
    for name in ODD_NAMES:
        save(tmp_path / name, Image.new("RGB", (2, 2), "red"), format="PNG")
    keys = list_images(tmp_path)
    assert set(keys) == {name for name in ODD_NAMES if name.endswith(".png")}
    assert json.loads(json.dumps(keys)) == keys
    assert all(read_image(key_path(tmp_path, key)).shape == (3, 2, 2) for key in keys)


def test_a_name_that_is_not_utf8_is_listed_and_refused_in_one_line(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / "x.png", Image.new("RGB", (2, 2))).rename(tmp_path / name)
    (key,) = list_images(tmp_path)
    assert key == json.loads(json.dumps(key)) == name
    with pytest.raises(UnreadableImage, match="UTF-8"):
        key_path(tmp_path, key)


def test_a_closed_folder_is_an_error_or_reported(tmp_path, monkeypatch):
    for name in ("a.png", "closed/b.png", "closed-not.png", "d/e.png"):
        save(tmp_path / name, Image.new("RGB", (2, 2)))
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith("/closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"cannot list the folder .*closed: Permission denied"):
        list_images(tmp_path)
    errors = {}
    assert list(iter_images(tmp_path, errors.__setitem__)) == ["a.png", "closed-not.png", "d/e.png"]
    assert list(errors) == ["closed/"]


def test_pipes_sockets_devices_and_circular_links_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "socket.jpg"))
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    keys = list_images(tmp_path)
    assert keys == ["circle.jpg", "device.jpg", "pipe.jpg", "socket.jpg"]
    messages = []

    def read_all():
        for key in keys:
            with pytest.raises(UnreadableImage) as error:
                read_image(tmp_path / key)
            messages.append(str(error.value))

    reader = threading.Thread(target=read_all, daemon=True)
    reader.start()
    reader.join(timeout=5)
    server.close()
    assert len(messages) == 4, "reading hangs"
    assert all("not a regular file" in message for message in messages[1:])
    assert "symbolic links" in messages[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    upright = np.zeros((6, 10, 3), np.uint8)
    upright[:3, :5] = 255
    undo = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # PIL's Transpose members
    stored = Image.fromarray(upright)
    for operation in undo[orientation]:
        stored = stored.transpose(Image.Transpose(operation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "photo.png", stored, exif=exif)
    assert torch.equal(read_image(path), torch.from_numpy(upright).permute(2, 0, 1))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the EXIF
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_broken_exif_does_not_lose_the_image(tmp_path, suffix):
    draws, exif = random.Random(0), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    for cut in (0, 3, 9):
        for _ in range(30):
            data = bytearray(exif.tobytes()[: -cut or None])
            for place in draws.choices(range(6, len(data)), k=4):
                data[place] = draws.randrange(256)
            path = save(tmp_path / f"noted.{suffix}", Image.new("RGB", (4, 8), "red"), exif=bytes(data), quality=100)
            assert set(read_image(path).shape[1:]) == {4, 8}


def test_every_mode_becomes_rgb(tmp_path):
    colour = (200, 40, 90)
    rgb = Image.new("RGB", (5, 3), colour)
    expected = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, 3, 5)
    assert torch.equal(read_image(save(tmp_path / "rgb.png", rgb)), expected)
    assert torch.equal(read_image(save(tmp_path / "palette.gif", rgb.quantize(4))), expected)
    cmyk = read_image(save(tmp_path / "cmyk.tif", rgb.convert("CMYK")))
    assert (cmyk.int() - expected.int()).abs().max() <= 1
    grey = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert read_image(save(tmp_path / "grey.png", grey)).unique(dim=0).flatten().tolist() == [0, 100, 255]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_levels_are_scaled_not_clipped(tmp_path, suffix):
    levels = np.array([[0, 257 * 7, 257 * 128, 65535]], np.uint16)
    path = save(tmp_path / f"deep.{suffix}", Image.fromarray(levels))
    assert read_image(path)[0].flatten().tolist() == [0, 7, 128, 255]


def test_transparent_parts_lie_over_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    image = read_image(save(tmp_path / "alpha.png", Image.fromarray(pixels, "RGBA")))
    assert image[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255], [204, 204, 204]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    path = save(tmp_path / "transparent.gif", palette, transparency=0)
    assert read_image(path).unique().tolist() == [255]


def test_size_cuts_the_central_square(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert read_image(save(tmp_path / "wide.png", Image.fromarray(wide)), 8).unique().tolist() == [255]


def test_unreadable_images_are_named(tmp_path):
    whole = save(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    )
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    assert "dangling.png" in list_images(tmp_path)
    for name in ("cut.png", "text.jpg", "empty.png", "dangling.png"):
        with pytest.raises(UnreadableImage, match=name):
            read_image(tmp_path / name)


def png_header(width, height):
    """A PNG that claims its size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 9) + b"IDAT"


def test_images_too_large_are_refused_before_decoding(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (tmp_path / "bomb.ppm").write_bytes(b"P6 30000 30000 255\n")
    (tmp_path / "huge.ppm").write_bytes(b"P6 4000000000 4000000000 255\n")
    for name in ("bomb.png", "bomb.ppm", "huge.ppm"):
        for size in (None, 8):
            with pytest.raises(UnreadableImage, match=f"{name}.* more than {MAX_PIXELS} pixels: scale it down"):
                read_image(tmp_path / name, size)


def test_the_limit_does_not_depend_on_pillows(tmp_path, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(png_header(30_000, 30_000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UnreadableImage, match="more than"):
        read_image(tmp_path / "bomb.png")
    assert Image.MAX_IMAGE_PIXELS is None


def test_a_large_jpeg_is_read_small_and_unchanged_below_the_limit(tmp_path):
    side = 13_440
    assert side**2 > MAX_PIXELS
    coarse = np.random.default_rng(0).integers(0, 256, (7, 7), np.uint8)
    large = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
    read = read_image(save(tmp_path / "large.jpg", large), 64)
    expected = np.asarray(large.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert abs(read[0].numpy() - expected).mean() < 1
    for options, size in (({}, None), ({"progressive": True}, 64)):
        with pytest.raises(UnreadableImage, match="more than"):
            read_image(save(tmp_path / "refused.jpg", large, **options), size)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (400, 400), np.uint8))
    whole = Image.open(save(tmp_path / "noise.jpg", noise)).resize((40, 40), Image.Resampling.BICUBIC)
    assert read_image(tmp_path / "noise.jpg", 40)[0].tolist() == np.asarray(whole).tolist()


def test_what_is_no_listed_format_is_refused_whatever_its_name(tmp_path):
    save(tmp_path / "program.eps", Image.new("RGB", (4, 4)))
    (tmp_path / "program.eps").rename(tmp_path / "program.jpg")
    with pytest.raises(UnreadableImage, match="cannot identify"):
        read_image(tmp_path / "program.jpg")
    save(tmp_path / "png.jpg", Image.new("RGB", (4, 4), "red"), format="PNG")
    assert read_image(tmp_path / "png.jpg")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = save(tmp_path / f"many.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    assert (read_image(path)[:, 0, 0].int() - torch.tensor([255, 0, 0])).abs().max() <= 2


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 9)])
def test_thin_images_are_read_at_any_size(tmp_path, shape):
    path = save(tmp_path / "thin.png", Image.new("RGB", shape, (9, 80, 200)))
    assert read_image(path).shape == (3, shape[1], shape[0])
    resized = read_image(path, 5)
    assert resized.shape == (3, 5, 5)
    assert resized[:, 2, 2].tolist() == [9, 80, 200]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "ppm", "webp"])
def test_cut_files_are_refused_in_one_printable_line(tmp_path, suffix, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = save(tmp_path / f"bad\nname.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UnreadableImage) as error:
        read_image(path, 8)
    assert str(error.value).isprintable()


def test_cmyk_and_grey_jpeg_become_rgb(tmp_path):
    colour = Image.new("RGB", (16, 16), (200, 40, 90))
    read = read_image(save(tmp_path / "cmyk.jpg", colour.convert("CMYK"), quality=100))
    assert (read[:, 8, 8].int() - torch.tensor([200, 40, 90])).abs().max() <= 3
    assert read_image(save(tmp_path / "grey.jpg", colour.convert("L"))).unique(dim=0).shape[0] == 1
    bits = save(tmp_path / "bits.png", Image.new("1", (4, 4), 1))
    assert read_image(bits).unique().tolist() == [255]


def test_a_list_of_keys_gives_keys_and_what_is_wrong_with_the_rest(tmp_path):
    lines = ["b/é 1.png", "./a.png", "a.png", "", "/etc/passwd.png", "x/../../y.png", "..", "b//c.png\r", " a.png"]
    path = tmp_path / "list.txt"
    path.write_bytes("\n".join(lines).encode() + b"\ncaf\xe9.png\nlast.png")
    keys, refused = read_key_list(path, tmp_path)
    assert keys == [" a.png", "a.png", "b/c.png", "b/é 1.png", "last.png"]
    assert list(refused) == ["/etc/passwd.png", "x/../../y.png", "..", "caf\udce9.png"]
    assert all("refused" in error for error in refused.values())


def test_a_list_in_json_lines_holds_every_name(tmp_path):
    path = tmp_path / "keys.jsonl"
    wanted = ["new\nline.png", "ü.png"]
    lines = [json.dumps(key) for key in (*wanted, "../x.png", "\udce9.png", ["a.png"])]
    path.write_text("\n".join([*lines, "not json", ""]))
    keys, refused = read_key_list(path, tmp_path)
    assert keys == wanted
    assert list(refused) == [*lines[2:], "not json"]


def test_a_list_that_names_nothing_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="names no image"):
        read_key_list(tmp_path / "empty.txt", tmp_path)
    with pytest.raises(ValueError, match="cannot read the list"):
        read_key_list(tmp_path / "missing.txt", tmp_path)
