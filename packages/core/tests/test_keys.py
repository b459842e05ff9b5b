"""Only paths that leave their folder, by the rules of POSIX or Windows, are rejected."""

import os
import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from genviews_core.keys import OUTSIDE_PATTERN, leaves_folder, name_fault, path_inside

OUTSIDE = ["", "/etc/passwd", "..", "../a.png", "a/../../b.png", "a/..", "..\\a.png", "a\\..\\b.png", "\\\\host\\a.png",
           "C:\\a.png", "c:/a.png", "a\0.png"]  # fmt: skip
INSIDE = ["a.png", "a/b.png", "a..png", "..a/b..", "...", "a\\b.png", "c:a.png", "a b/ü\n.png", ".hidden"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_parent_and_absolute_paths_are_rejected(tmp_path, path):
    assert leaves_folder(path)
    with pytest.raises(ValueError, match=re.escape(f"expected a path inside {tmp_path}, got {path!r}")):
        path_inside(tmp_path, path)


@pytest.mark.parametrize("path", INSIDE)
def test_all_other_paths_are_accepted(tmp_path, path):
    assert not leaves_folder(path)
    assert path_inside(tmp_path, path) == tmp_path / path


def test_the_pattern_matches_the_same_paths_in_arrow():
    found = pc.match_substring_regex(pa.array(OUTSIDE + INSIDE), OUTSIDE_PATTERN).to_pylist()
    assert found == [True] * len(OUTSIDE) + [False] * len(INSIDE)


def test_links_must_stay_inside(tmp_path, monkeypatch):
    folder, other = tmp_path / "real", tmp_path / "other"
    for made in (folder / "a", other):
        made.mkdir(parents=True)
        (made / "x.png").touch()
    (tmp_path / "linked").symlink_to(folder)
    (folder / "b").symlink_to("a")
    (folder / "out").symlink_to(other)
    (folder / "a/y.png").symlink_to(other / "x.png")
    monkeypatch.chdir(tmp_path / "linked")
    for root in (folder, tmp_path / "linked", os.curdir):
        assert path_inside(root, "a/x.png").is_file()
        assert path_inside(root, "b/x.png").is_file()
        for path in ("out/x.png", "a/y.png", "b/y.png"):
            with pytest.raises(ValueError, match="a link to"):
                path_inside(root, path)


def test_a_utf8_name_in_another_locale_is_not_reported_as_invalid(monkeypatch):
    """Return "ü" as read by a process with UTF-8, ASCII (PYTHONUTF8=0 LC_ALL=C) or Latin-1 file names."""
    name = "ü.png".encode()
    assert name_fault(name.decode()) is None
    assert "rename the file" in str(name_fault(b"\xff.png".decode(errors="surrogateescape")))
    for encoding in ("ascii", "iso8859-1"):
        monkeypatch.setattr("sys.getfilesystemencoding", lambda encoding=encoding: encoding)
        fault = name_fault(name.decode(encoding, errors="surrogateescape"))
        assert fault == f"this process reads file names as {encoding}, not as UTF-8: run it with PYTHONUTF8=1"
        assert name_fault("plain.png") is None
