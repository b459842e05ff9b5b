"""Every subcommand of every command builds its parser and prints help; duplicate option names would fail."""

import importlib
import re
from dataclasses import fields
from pathlib import Path

import pytest

from genviews import generation, generator_training
from tests.in_process import run_main, run_program
from viewgen import cli
from viewgen.loading import GENERATORS

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("pairquality", "ssl_eval", "sslzoo", "viewgen")
# Programs that dispatch on their first argument; subcommands of tyro are read from its help.
WORDS = {
    "ssl_eval": ["report"],
    "apps/evaluate": ["retrieval", "copy-detection", "video", "slides", "segmentation"],
    "benchmarks/cost_benefit": ["cost", "agreement"],
    "benchmarks/gpu": ["evidence", "speedrun", "table", "trial", "variant"],
    "benchmarks/throughput": ["step", "augmentation", "views", "keys", "quality", "loader", "eval", "trainings"],
}
PROGRAMS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("[ab]*/*/__main__.py"))


def show_help(command: str, *words: str) -> str:
    """Run ``command WORDS --help`` in this process, check that it succeeds, and return its output."""
    if command in LIBRARIES:
        return run_main(importlib.import_module(f"{command}.cli").main, command, *words, "--help")
    return run_program(command, *words, "--help")


def subcommands(shown: str) -> list[str]:
    """Return the subcommands that tyro's help lists."""
    listed = re.search(r"\{([\w,.-]+(?:\s*,\s*[\w.-]+)*)\}", shown.partition("options")[0].replace("\n", ""))
    return listed[1].split(",") if listed else []


@pytest.mark.parametrize("command", [*LIBRARIES, *PROGRAMS])
def test_every_subcommand_has_help(command):
    shown = show_help(command)
    texts = {word: show_help(command, word) for word in WORDS.get(command) or subcommands(shown)}
    assert all("--" in text for text in texts.values()), texts
    if command not in ("benchmarks/gpu", "benchmarks/throughput"):  # whose figures are of one kind of machine
        for text in (shown, *texts.values()):
            assert set(re.findall(r"--device\b.*?\(default: (.*?)\)", text, re.DOTALL)) <= {"auto"}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("command", ["generate", "embed"])
def test_every_generator_has_help(command, name):
    shown = show_help("viewgen", command, "--generator", name)
    assert "--device" in shown and len(set(re.findall(r"^\W*(--[\w-]+) ", shown, re.MULTILINE))) > 8


def test_both_generate_commands_have_the_same_defaults():
    ours, theirs = (
        {field.name: field.default for field in fields(kind)} for kind in (generation.GenerateOptions, cli.Generate)
    )
    assert ours.pop("image_format") is None and theirs.pop("image_format") == "png"  # ours depends on the channels
    shared = ours.keys() & theirs.keys()
    assert {"alpha", "workers", "batch_size", "partner", "seed", "views_per_image"} <= shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize(
    ("options", "steps"), [({}, 2000), ({"steps": 5}, 10), ({"steps": 5, "autoencoder_steps": 7}, 7), ({"steps": 0}, 1)]
)
def test_short_diffusion_training_shortens_the_autoencoder_training(options, steps):
    chosen = generator_training.TrainGeneratorOptions(
        images=Path("x"), encoder="x", out=Path("x"), preset="64-small", **options
    )
    assert generator_training.autoencoder_steps(chosen, 2000) == steps
