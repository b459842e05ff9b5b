"""Listing a folder: order of keys, hidden names, links, unreadable folders."""

import errno
import inspect
import os
import random
import sys
import tracemalloc

import pytest

from genviews_core.listing import images_in, iter_images, visible


def touch(root, *keys):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()


def test_keys_are_in_byte_order(tmp_path):
    draws = random.Random(0)
    keys = {"".join(draws.choices("a-/.0Aé\uffff\U0001f600", k=6)) + ".png" for _ in range(500)}
    keys = {key for key in keys if not any(part.startswith(".") or not part for part in key.split("/"))}
    touch(tmp_path, *keys)
    assert sum("/" in key for key in keys) > 50
    assert list(iter_images(tmp_path)) == sorted(keys, key=str.encode)


def test_hidden_names_and_other_files_are_skipped(tmp_path):
    touch(tmp_path, "a/1.PNG", "a/._1.png", "a/.x.jpg", ".cache/1.png", "a/.DS_Store", "a/notes.txt", "b.jp2", ".b.jpg")
    assert list(iter_images(tmp_path)) == ["a/1.PNG", "b.jp2"]
    assert images_in(tmp_path / "a") == [tmp_path / "a/1.PNG"]
    assert visible(tmp_path) == [tmp_path / "a", tmp_path / "b.jp2"]
    assert visible(tmp_path / "a") == [tmp_path / "a/1.PNG", tmp_path / "a/notes.txt"]


def test_links_are_followed_except_in_cycles(tmp_path):
    touch(tmp_path / "elsewhere", "c/3.png")
    root = tmp_path / "set"
    touch(root, "a/1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "c")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "2.png").symlink_to(root / "a" / "1.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "circle.png").symlink_to(root / "circle.png")
    assert list(iter_images(root)) == ["a/1.png", "a/2.png", "b/3.png", "circle.png", "gone.png"]
    assert list(iter_images(root, follow_links=False)) == ["a/1.png"]


def test_an_unreadable_folder_is_an_error_or_reported(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "closed/b.png", "closed-not.png", "d/e.png")
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith("/closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match=r"cannot list the folder .*closed: Permission denied"):
        list(iter_images(tmp_path))
    errors = {}
    assert list(iter_images(tmp_path, errors.__setitem__)) == ["a.png", "closed-not.png", "d/e.png"]
    assert list(errors) == ["closed/"]
    monkeypatch.setattr(os, "listdir", lambda folder: refusing(f"{folder}/closed"))
    for read in (visible, images_in):
        with pytest.raises(ValueError, match=r"cannot list the folder .*: Permission denied"):
            read(tmp_path)


def test_the_error_for_a_missing_folder_names_it(tmp_path):
    for read in (lambda: list(iter_images(tmp_path / "missing")), lambda: images_in(tmp_path / "missing")):
        with pytest.raises(ValueError, match=r"missing is not a folder \(No such file or directory\); give"):
            read()


def test_listing_holds_one_folder_at_a_time(tmp_path):
    for folder in range(10):
        touch(tmp_path, *(f"{folder:02d}/{name:0100d}.png" for name in range(100)))
    tracemalloc.start()
    count = sum(1 for _ in iter_images(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert peak < 100_000  # all names together take 160 kB


def test_folders_deeper_than_the_recursion_limit_are_listed(tmp_path):
    folder = tmp_path.joinpath(*"d" * 200)
    touch(folder, "x.png")
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        keys = list(iter_images(tmp_path))
    finally:
        sys.setrecursionlimit(usual)
    assert keys == ["d/" * 200 + "x.png"]
