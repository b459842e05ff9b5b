"""Help in groups, misspelled options, and shell completion."""

import re
import shutil
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro

from genviews.cli.completion import FLAT, completion
from genviews.cli.pretrain import default_options
from genviews.evaluation.tasks import TASKS
from genviews.option_groups import field_texts, options_of, parse_grouped
from genviews.pretraining.options import PretrainOptions


@dataclass(frozen=True, kw_only=True)
class Base:
    """Options of all jobs."""

    workers: int = 0
    """Number of
    threads."""


@dataclass(frozen=True, kw_only=True)
class Example(Base):
    """Some options."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"sampling": ("steps", "guided")}

    images: Annotated[Path, tyro.conf.Positional]
    """Folder of images."""
    steps: int | None = None
    """Sampling steps."""
    guided: bool = False
    rate: Annotated[float, tyro.conf.arg(name="speed", aliases=["--lr"])] = 0.5
    kind: tuple[Literal["a", "b"], ...] = ()


def parse(*arguments: str, default: Example | None = None) -> Example:
    return parse_grouped(Example, arguments, prog="genviews example", description="An example.", default=default)


def test_options_parse_as_the_dataclass_has_them():
    assert parse("x") == Example(images=Path("x"))
    words = ["x", "--steps", "3", "--guided", "--lr=2", "--kind", "a", "b", "--workers", "1"]
    whole = Example(images=Path("x"), steps=3, guided=True, rate=2.0, kind=("a", "b"), workers=1)
    assert parse(*words) == whole
    assert parse("--no-guided", "y", default=whole) == Example(
        images=Path("y"), steps=3, rate=2.0, kind=("a", "b"), workers=1
    )


def test_help_has_the_main_options_first(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    main, _, sampling = capsys.readouterr().out.partition("sampling options")
    assert "Number of threads." in main and "--lr FLOAT, --speed FLOAT" in main and "Folder of images." in main
    assert "--steps INT" in sampling and "--guided, --no-guided" in sampling and "None" not in sampling
    assert "--steps" not in main


@pytest.mark.parametrize(
    ("word", "near"), [("--step=3", "--steps"), ("--no-guide", "--no-guided"), ("--sped", "--speed")]
)
def test_a_misspelled_option_names_the_near_ones(word, near):
    with pytest.raises(ValueError, match=f"expected an option of genviews example, got --.*; did you mean {near}"):
        parse(word)


def every_kind():
    yield PretrainOptions, default_options("small-dino")
    yield from ((kind, None) for kind in FLAT.values())
    yield from ((task.options(), None) for task in TASKS.values())


@pytest.mark.parametrize(("kind", "default"), list(every_kind()))
def test_about_ten_options_are_outside_the_groups(kind, default):
    grouped = [name for names in getattr(kind, "HELP_GROUPS", {}).values() for name in names]
    names = [option.name for option in options_of(kind, default)]
    assert set(grouped) <= set(names) and len(grouped) == len(set(grouped)) and len(names) == len(set(names))
    assert 2 <= len(names) - len(grouped) <= 13


def test_texts_of_fields_are_those_in_the_source():
    texts = field_texts(Example)
    assert texts == {"workers": "Number of threads.", "images": "Folder of images.", "steps": "Sampling steps."}
    assert texts.keys() <= {field.name for field in fields(Example)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("p", "pretrain pack"),
        ("pretrain cifar10-di", "cifar10-dino"),
        ("pretrain small-dino --ep", "--epochs"),
        ("pretrain small-dino --policy genv", "genview"),
        ("evaluate retr", "retrieval"),
        ("evaluate retrieval B --mu", "--multi-scale"),
        ("evaluate B --lab", "--label-list"),
        ("generate images", ""),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(tmp_path, line, expected):
    script = tmp_path / "completion"
    script.write_text(completion("bash"))
    words = " ".join(f"'{word}'" for word in ["genviews", *line.split(" ")])
    call = f"source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _genviews"
    done = subprocess.run(
        ["bash", "-c", f'{call}; echo "${{COMPREPLY[*]}}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected and not done.stderr


def test_zsh_gets_the_same_functions():
    assert completion("zsh").endswith(completion("bash")) and re.search("bashcompinit", completion("zsh"))
