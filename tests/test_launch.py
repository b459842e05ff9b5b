"""Exit of apps/launch after the failure of a process; torchrun itself is not tested here."""

import logging

import pytest
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from genviews.cli.launch import main as launch_command


@pytest.fixture
def launch(monkeypatch):
    """launch(exit codes by rank) returns the exit code of the launcher when those processes fail."""
    logger = logging.getLogger("torch.distributed.elastic")
    monkeypatch.setattr(logger, "level", logger.level)

    def end(codes: dict[int, int]) -> int:
        def fail(options) -> None:
            assert options.training_script == "apps/x" and options.training_script_args == ["--data", "d"]
            failures = {rank: ProcessFailure(rank, 100 + rank, code, "none") for rank, code in codes.items()}
            raise ChildFailedError("apps/x", failures)

        monkeypatch.setattr(torchrun, "run", fail)
        with pytest.raises(SystemExit) as ended:
            launch_command(["--standalone", "--nproc_per_node=2", "apps/x", "--data", "d"])
        return ended.value.code

    return end


def test_message_of_a_failed_process_is_the_last_line(launch, capsys):
    assert launch({0: 1}) == 1
    assert launch({1: 3}) == 3
    assert capsys.readouterr().err == ""


def test_killed_process_is_reported(launch, capsys):
    assert launch({1: -9}) == 137
    assert capsys.readouterr().err == "error: process 1 was ended by SIGKILL\n"
