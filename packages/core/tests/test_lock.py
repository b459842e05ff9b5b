import multiprocessing
import os
import re
import time
from pathlib import Path

import pytest

from genviews_core.files import WriteError
from genviews_core.lock import LockedError, lock_file, lock_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _hold(folder: Path, ready: int) -> None:
    with lock_folder(folder):
        if os.fork() == 0:  # a worker, which must not keep the lock alive
            time.sleep(2)
            os._exit(0)
        os.write(ready, b"1")
        time.sleep(20)


def test_the_error_of_a_second_process_names_the_first_and_a_kill_releases_the_lock(tmp_path):
    read, ready = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "out", ready))
    process.start()
    os.read(read, 1)
    message = rf"out is being written by process {process.pid} on {re.escape(os.uname().nodename)} since \d{{4}}-"
    with pytest.raises(LockedError, match=message), lock_folder(tmp_path / "out"):
        pass
    process.kill()
    process.join()
    with lock_folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == []


def test_a_second_lock_in_the_same_process_fails_and_the_first_is_kept(tmp_path):
    with lock_file(tmp_path / "a.parquet"), lock_file(tmp_path / "b.parquet"), lock_folder(tmp_path):
        for _ in range(2):
            with pytest.raises(LockedError, match="being written by this process"), lock_folder(tmp_path):
                pass
        assert names(tmp_path) == [".a.parquet.lock", ".b.parquet.lock", ".lock"]
    assert names(tmp_path) == []


@pytest.mark.parametrize("lock", [lock_file, lock_folder])
def test_a_folder_that_cannot_be_created_is_a_one_line_error(lock):
    with pytest.raises(WriteError, match="cannot write /proc/x/y: the folder cannot be created"), lock("/proc/x/y"):
        pass
