"""The index of a folder: keys, order, classes, links, and what users get wrong."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairdata import index_images
from pairdata.string_array import StringArray


def _touch(root, *keys):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"")


def test_keys_are_sorted_paths_at_any_depth_and_of_every_image_format(tmp_path):
    keys = ["b/x.JPG", "a/deep/er/y.png", "a-b/z.webp", "a/x.tif", "ä/1.jpeg", "root.bmp"]
    _touch(tmp_path, *keys, "a/notes.txt", "a/.hidden.png", ".cache/1.png", "noimages/readme.md")
    index = index_images(tmp_path)
    assert [index.key(i) for i in range(len(index))] == sorted(keys, key=str.encode)
    assert index.classes == ("a", "a-b", "b", "ä")
    for i in range(len(index)):
        key = index.key(i)
        assert index.position(key) == i
        assert index.path(i) == tmp_path / key
        folder = key.partition("/")[0]
        assert index.labels[i] == (-1 if key == "root.bmp" else index.classes.index(folder))


def test_images_directly_in_the_root_have_no_class(tmp_path):
    _touch(tmp_path, "1.png", "2.png")
    index = index_images(tmp_path)
    assert index.classes == ()
    assert index.labels.tolist() == [-1, -1]


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    _touch(tmp_path / "elsewhere", "c/3.png")
    root = tmp_path / "set"
    _touch(root, "a/1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "2.png").symlink_to(root / "a" / "1.png")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    assert list(index_images(root).keys) == ["a/1.png", "a/2.png", "a/gone.png", "b/3.png"]
    assert list(index_images(root, follow_symlinks=False).keys) == ["a/1.png"]


def test_a_key_that_is_not_there_is_named(tmp_path):
    _touch(tmp_path, "a/1.png")
    with pytest.raises(KeyError, match=r"a/0\.png"):
        index_images(tmp_path).position("a/0.png")


def test_a_wrong_root_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothere"):
        index_images(tmp_path / "nothere")
    _touch(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match=r"expected images .* below"):
        index_images(tmp_path)


def test_names_that_are_not_utf8_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        _touch(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    index = index_images(tmp_path)
    assert index.path(0).exists()
    assert index.position(name) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"])), unique=True))
def test_packed_strings_are_a_list_of_strings(strings):
    strings.sort(key=str.encode)
    packed = StringArray.pack(strings)
    assert list(packed) == strings
    assert [packed.find(string) for string in strings] == list(range(len(strings)))
    assert packed.find("\x00not there") == -1
    assert packed.to_arrow().to_pylist() == [string.encode() for string in strings]
    assert list(packed.take(np.arange(0, len(strings), 2))) == strings[::2]


def test_a_million_keys_take_tens_of_megabytes():
    packed = StringArray.pack(f"n{i // 1300:08d}/n{i // 1300:08d}_{i % 1300:08d}.JPEG" for i in range(1_000_000))
    assert packed.data.nbytes + packed.offsets.nbytes < 50e6
    assert packed.find("n00000384/n00000384_00000800.JPEG") == 384 * 1300 + 800
