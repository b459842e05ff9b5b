import subprocess
import sys
import warnings

import pytest

from genviews_core.command import BROKEN_PIPE, Interrupted, command


def test_a_closed_pipe_ends_a_command_without_output():
    program = (
        "from genviews_core.command import command\n@command\ndef main():\n    print('a line\\n' * 100000)\nmain()"
    )
    job = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None and job.stdout.readline() == "a line\n"
    job.stdout.close()
    assert job.wait() == BROKEN_PIPE and job.stderr is not None and job.stderr.read() == ""
    job.stderr.close()


@command
def fail(message: str) -> None:
    sys.exit(message)


def test_only_one_of_several_processes_prints_a_message(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    messages = []
    for rank in (0, 1):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / str(rank) / "error.json"))
        (tmp_path / "attempt_0" / str(rank)).mkdir(parents=True)
        for message in ("error: of both", f"error: of {rank}"):
            with pytest.raises(SystemExit) as ended:
                fail(message)
            messages.append(ended.value.code)
    assert messages == ["error: of both", "error: of 0", 1, "error: of 1"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("of the user"), "error: of the user"),
        (KeyboardInterrupt(), "stopped; run the same command again to continue"),
    ],
)
def test_a_mistake_and_an_interruption_end_in_one_line(error, line):
    @command
    def raise_it() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        raise_it()
    assert ended.value.code == line


@pytest.mark.parametrize(("error", "line", "code"), [
    (FloatingPointError("of the loss"), "error: of the loss\n", 1), (Interrupted("by a signal"), "by a signal\n", 1),
])  # fmt: skip
def test_what_all_processes_share_is_printed_by_the_first(error, line, code, capsys, monkeypatch):
    @command
    def raise_it() -> None:
        raise error

    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            raise_it()
        assert ended.value.code == code
        assert capsys.readouterr().err == (line if rank == "0" else "")


def test_a_warning_for_the_user_is_one_line_without_code(capsys):
    @command
    def warn() -> None:
        for category in (UserWarning, FutureWarning):
            sys.stderr.write(warnings.formatwarning("two\nlines", category, "x.py", 3, "code()"))

    default = warnings.formatwarning
    warn()
    assert capsys.readouterr().err == "warning: two lines\nx.py:3: FutureWarning: two\nlines\n  code()\n"
    assert warnings.formatwarning is default


def test_a_single_process_exits_unchanged(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    for _ in range(2):
        with pytest.raises(SystemExit, match="error: x"):
            fail("error: x")
    assert command(lambda: 3)() == 3
