from collections import namedtuple

import pytest

from genviews_core import disk

Usage = namedtuple("Usage", "total used free")


def test_a_line_says_what_is_needed_and_what_is_free(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: asked.append(path) or Usage(0, 0, 3 * 2**30))
    line = disk.require_space(tmp_path / "not" / "there", 5 * 2**20, "300 views")
    assert line == f"300 views: about 5.0 MiB of disk, 3.0 GiB are free in {tmp_path}" and asked == [tmp_path]
    with pytest.raises(
        ValueError, match=r"expected 4.0 GiB of free disk for 300 views in .*, got 3.0 GiB; delete some"
    ):
        disk.require_space(tmp_path, 2**32, "300 views", remedy="delete some")


def test_sizes_are_readable():
    assert [disk.readable(size) for size in (12, 2048, 30 * 2**20, 5e12)] == ["12 B", "2.0 KiB", "30 MiB", "4,657 GiB"]


def test_small_files_occupy_a_block():
    assert disk.on_disk(100) == 4096 and disk.on_disk(10_000) == 12_048
