import io

import pytest
from rich.console import Console

from genviews_core import progress as module


@pytest.fixture
def plain(monkeypatch):
    """update(seconds, done, total) of a task without a terminal, and a function that returns its output."""
    clock, written = [0.0], io.StringIO()
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    progress = module.Progress()
    progress.console = Console(file=written, width=200)
    task = progress.add_task("encoder")

    def update(seconds: float, *arguments: object) -> str:
        before, clock[0] = len(written.getvalue()), seconds
        task(*arguments)
        return " ".join(written.getvalue()[before:].split())

    return update


def test_plain_output_is_printed_at_once_and_then_periodically(plain):
    assert plain(2.0, 1, 1001, {"loss": 1.0}) == "encoder 1/1001 2 s about 33 min left loss 1.000"
    assert plain(4.0, 2, 1001) == ""
    assert plain(20.0, 11, 1001) == "encoder 11/1001 20 s about 30 min left 0.55/s"
    assert plain(21.0, 1001, 1001) == "encoder 1001/1001 21 s 47.7/s"


def test_resumed_task_is_timed_from_its_first_update(plain):
    assert plain(2.0, 500, 1000) == "encoder 500/1000 2 s"
    assert "about 100 s left 2.5/s" in plain(102.0, 750, 1000)
