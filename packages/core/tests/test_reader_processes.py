"""Processes that read images start beside threads that hold locks."""

import importlib
import json
import logging
import multiprocessing
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from genviews_core.images import read_rgb
from genviews_core.reader_processes import start_method


def read(path) -> None:
    np.asarray(read_rgb(path).resize((32, 32))).mean()


def test_linux_forks_and_no_workers_need_nothing():
    assert start_method(0) is None
    assert start_method(2) == ("fork" if sys.platform == "linux" else None)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_fifty_processes_read_beside_busy_threads(tmp_path):
    for kind in ("png", "jpg", "webp"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)).save(tmp_path / f"a.{kind}")
    log, ended = logging.getLogger("busy"), threading.Event()
    log.addHandler(logging.FileHandler(tmp_path / "log"))
    ones = torch.ones(200, 200)
    busy = {
        "allocate": lambda: [bytearray(size) for size in range(1, 5000, 7)],
        "compute": lambda: torch.mm(ones, ones),
        "log": lambda: log.warning("busy"),
        "import": lambda: importlib.reload(json),
    }

    def repeat(task) -> None:
        while not ended.wait(0.005):
            task()

    threads = [threading.Thread(target=repeat, args=(task,), daemon=True) for task in busy.values()]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context(start_method())
    try:
        for _ in range(17):
            readers = [context.Process(target=read, args=(tmp_path / f"a.{kind}",)) for kind in ("png", "jpg", "webp")]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(300)
                assert reader.exitcode == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
