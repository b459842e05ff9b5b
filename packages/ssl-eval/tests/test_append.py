import errno
import os

import pytest

from genviews_core.files import WriteError
from ssl_eval.append import append_line


def test_a_line_is_appended_after_an_incomplete_one(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    append_line(path, "one")
    with path.open("a") as file:
        file.write("tor")
    append_line(path, "two")
    assert path.read_text() == "one\ntor\ntwo\n"

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="the disk is full"):
        append_line(path, "three")
    assert path.read_text() == "one\ntor\ntwo\n"
