"""The command `genviews` and the apps: help without torch, and errors in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from genviews.cli import JOBS, main
from genviews.evaluation.tasks import TASKS
from genviews.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[3]
APPS = sorted(path.parent for path in ROOT.glob("apps/*/__main__.py"))
SHOW = """
import contextlib, io, runpy, sys

def run(call):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        call()
    assert shown.getvalue(), sys.argv
    assert "torch" not in sys.modules, sys.argv

from genviews.cli import main
for line in {commands!r}:
    sys.argv = ["genviews", *line]
    run(main)
for app in {apps!r}:
    sys.argv = [app, "--help"]
    run(lambda: runpy.run_path(app, run_name="__main__"))
"""


def test_help_of_every_command_does_not_import_torch():
    commands = [
        ["--help"],
        *([job, "--help"] for job in JOBS),
        ["pretrain", "--list"],
        ["pretrain", "small-dino", "--help"],
    ]
    commands += [["evaluate", task, "--help"] for task in TASKS]
    script = SHOW.format(commands=commands, apps=[str(app) for app in APPS])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(APPS) == 8


def test_help_names_every_job_and_pretrain_every_recipe(monkeypatch, capsys):
    for arguments, names in ((["--help"], JOBS), (["pretrain", "--help"], RECIPES), (["pretrain", "--list"], RECIPES)):
        monkeypatch.setattr(sys, "argv", ["genviews", *arguments])
        main()
        shown = capsys.readouterr().out
        assert all(name in shown for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretran"], "error: expected a job, got 'pretran'; did you mean pretrain?"),
        (
            ["pretrain", "cifar10-simsam"],
            "error: expected quickstart or a recipe, got 'cifar10-simsam'; did you mean cifar10-sims",
        ),
        (["pack", "nowhere", "--out", "o"], "error: "),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["genviews", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert str(end.value).startswith(message) and "\n" not in str(end.value)
