import json
import os

import numpy as np
import pytest
from PIL import Image

from viewgen import UnreadableImage, list_images, read_image
from viewgen.keys import key_path, read_key_list

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
    with pytest.raises(ValueError, match="expected images"):
        list_images(tmp_path)


@pytest.mark.parametrize("key", ["../x.png", "/etc/x.png", "a/../../x.png", "", "a\0.png", "caf\udce9.png"])
def test_refuses_keys_that_leave_the_folder_or_fit_no_manifest(tmp_path, key):
    with pytest.raises(UnreadableImage, match=r"expected a key|is refused; its name is not UTF-8") as error:
        key_path(tmp_path, key)
    assert str(error.value).isprintable()
    str(error.value).encode()


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


def test_a_list_of_keys_gives_keys_and_what_is_wrong_with_the_rest(tmp_path):
    lines = ["b/é 1.png", "./a.png", "a.png", "", "/etc/passwd.png", "x/../../y.png", "..", "b//c.png\r", " a.png"]
    path = tmp_path / "list.txt"
    path.write_bytes("\n".join(lines).encode() + b"\ncaf\xe9.png\nlast.png")
    keys, refused = read_key_list(path, tmp_path)
    assert keys == [" a.png", "a.png", "b/c.png", "b/é 1.png", "last.png"]
    assert list(refused) == ["/etc/passwd.png", "x/../../y.png", "..", "caf\udce9.png"]
    assert all(error.startswith(("expected a key", "the key")) for error in refused.values())


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
    with pytest.raises(ValueError, match="empty list"):
        read_key_list(tmp_path / "empty.txt", tmp_path)
    with pytest.raises(ValueError, match="cannot read the list"):
        read_key_list(tmp_path / "missing.txt", tmp_path)
