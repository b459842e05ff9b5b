import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genviews_core.files import WriteError, atomic_write, check_writable, make_folder, write_json, writing
from genviews_core.tensor_files import save_tensors, save_torch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


BIG = torch.zeros(1 << 16)
WRITERS = {
    "bytes": lambda path: atomic_write(path, b"new"),
    "text": lambda path: atomic_write(path, "new"),
    "function": lambda path: atomic_write(path, lambda temporary: temporary.write_text("new")),
    "json": lambda path: write_json(path, {"a": 1}),
    "torch": lambda path: save_torch(path, {"a": BIG}),
    "tensors": lambda path: save_tensors(path, {"a": BIG}, {"made": "here"}),
}
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@each_writer
def test_a_file_replaces_the_old_one_and_leaves_no_temporary_file(write, tmp_path):
    path = tmp_path / "some" / "folder" / "file"
    write(path)
    first = path.read_bytes()
    write(path)
    assert path.read_bytes() == first and names(path.parent) == ["file"]


@each_writer
def test_a_file_has_the_permissions_of_the_umask(write, tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == usual.stat().st_mode


@each_writer
def test_a_full_disk_is_a_one_line_error_and_the_old_file_stays(write, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"^cannot write .*file: the disk is full; free some space[^\n]*$"):
        write(path)
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_disk_full_errors_of_torch_and_safetensors_are_recognized(tmp_path):
    def save(temporary):
        with Path("/dev/full").open("wb") as file:
            torch.save({"a": BIG}, file)

    with pytest.raises(WriteError, match="file: the disk is full"):
        atomic_write(tmp_path / "file", save)
    with pytest.raises(WriteError, match="file: the disk is full"), writing("file"):
        raise OverflowError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_other_errors_propagate_and_leave_no_partial_file(tmp_path):
    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("not of the disk")

    with pytest.raises(RuntimeError, match="not of the disk"):
        atomic_write(tmp_path / "file", fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, "permission denied; change the permissions"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
        (errno.EDQUOT, "the disk is full; free some space"),
        (errno.EIO, "Input/output error; choose another folder"),
    ],
)
def test_each_os_error_has_its_remedy(number, message):
    with pytest.raises(WriteError, match=f"cannot write a/b: {message}"), writing("a/b"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("write", [make_folder, check_writable, *WRITERS.values()])
def test_folders_that_cannot_be_created(write, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match="a file exists where a folder is needed"):
        write(tmp_path / "file" / "below" / "name")
    with pytest.raises(WriteError, match="cannot write /proc/x/y: the folder cannot be created"):
        write("/proc/x/y")
    with pytest.raises(WriteError, match="the name is too long"):
        write(tmp_path / ("x" * 300))
    assert names(tmp_path) == ["file"]


def test_checking_whether_a_file_can_be_written_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(WriteError, match="a folder exists where a file is needed"):
        check_writable(tmp_path)


def test_tensors_and_metadata_round_trip(tmp_path):
    views = torch.arange(6.0).view(2, 3).T  # not contiguous
    save_tensors(tmp_path / "file", {"a": views})
    assert torch.equal(load_file(tmp_path / "file")["a"], views)
