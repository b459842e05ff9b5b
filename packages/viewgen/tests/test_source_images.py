import numpy as np
import pytest
import torch
from PIL import Image

from viewgen import UnreadableImage, list_images, read_image
from viewgen.images import key_path


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


@pytest.mark.parametrize("key", ["../x.png", "/etc/x.png", "a/../../x.png", "", "a\0.png"])
def test_refuses_keys_that_leave_the_folder(tmp_path, key):
    with pytest.raises(ValueError, match="refused"):
        key_path(tmp_path, key)


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
