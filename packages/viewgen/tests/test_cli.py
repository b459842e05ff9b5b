"""The commands as a user types them."""

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from viewgen import list_images
from viewgen.cli import main, run
from viewgen.cli_options import options_dataclass
from viewgen.loading import GENERATORS, generator_class


@pytest.fixture
def generate(images, trained, embeddings, tmp_path):
    def command(*more: str, root: Path = images, out: Path = tmp_path / "views") -> int:
        model = [
            "--generator",
            "eldm",
            "--folder",
            str(trained),
            "--steps",
            "3",
            "--embeddings",
            str(embeddings.folder),
        ]
        return run(["generate", str(root), "--out", str(out), *model, "--devices", "cpu", *more])

    return command


@pytest.mark.slow
def test_from_images_to_a_contact_sheet(generate, images, tmp_path, capsys):
    views = tmp_path / "views"
    assert generate("--views-per-image", "2", "--interpolate", "--alpha", "0.3", "0.7") == 0
    assert "28 views written, 0 already there, 0 failed" in capsys.readouterr().out
    rows = pq.read_table(views / "manifest.parquet").to_pylist()
    assert len(rows) == 28
    assert all(0.3 <= row["alpha"] <= 0.7 for row in rows)
    assert generate("--views-per-image", "2", "--interpolate", "--alpha", "0.3", "0.7") == 0
    assert "0 views written, 28 already there" in capsys.readouterr().out
    assert run(["verify", str(views), "--check-bytes"]) == 0
    (views / rows[3]["path"]).write_bytes(b"damaged")
    assert run(["verify", str(views), "--check-bytes"]) == 4
    assert f"damaged: {rows[3]['path']}" in capsys.readouterr().out
    assert run(["verify", str(views), "--check-bytes", "--repair"]) == 0
    assert run(["index", str(views)]) == 0
    assert len(pq.read_table(views / "manifest.parquet")) == 27
    assert run(["show", str(images), str(views), "--out", str(tmp_path / "sheet.png"), "--count", "3"]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.slow
def test_bad_lines_of_a_list_are_failures_and_the_rest_is_made(generate, images, tmp_path, capsys):
    keys = list_images(images)[:3]
    listed = tmp_path / "keys.txt"
    listed.write_text("\n".join([*keys, "../secret.png", "/etc/passwd", "no such image.png", ""]))
    assert generate("--list", str(listed)) == 3
    assert "3 views written, 0 already there, 3 failed" in capsys.readouterr().out
    failures = [json.loads(line) for line in (tmp_path / "views/failures.jsonl").read_text().splitlines()]
    assert {failure["key"] for failure in failures} == {"../secret.png", "/etc/passwd", "no such image.png"}
    assert sorted(path.name for path in (tmp_path / "views").rglob("*.png")) == sorted(
        f"{Path(key).name}.0.png" for key in keys
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strength", "adaptive:1,2,3,4,5"], "foreground ratios"),
        (["--strength", "random"], "expected no strength"),
        (["--strength", "loud"], "invalid strength"),
        (["--embeddings", "nowhere"], "expected finished embeddings"),
        (["--list", "nowhere"], "cannot read the list"),
    ],
)
def test_mistakes_are_told_in_one_line(generate, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        generate(*arguments)
    assert "\n" not in str(error.value)


def test_the_program_ends_with_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["viewgen", "index", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value).startswith("error: ") and "expected journals" in str(ended.value)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_shows_every_option_with_its_text(name, capsys):
    with pytest.raises(SystemExit) as ended:
        run(["generate", "images", "--out", "views", "--generator", name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    options = options_dataclass(name, without={"device"})
    for option, annotation in options.__annotations__.items():
        assert f"--{option.replace('_', '-')}" in shown
        assert annotation.__metadata__[0].help, f"{name}: the docstring does not describe {option}"


@pytest.mark.parametrize("name", GENERATORS)
def test_options_are_those_of_the_class(name):
    signature = inspect.signature(generator_class(name))
    options = options_dataclass(name, without={"device"})
    for field in dataclasses.fields(options):
        default = signature.parameters[field.name].default
        assert field.default == (dataclasses.MISSING if default is inspect.Parameter.empty else default)
    assert {"device", "encoder"} >= signature.parameters.keys() - {field.name for field in dataclasses.fields(options)}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["generate"],
        ["embed"],
        ["index"],
        ["verify"],
        ["show"],
        *(["generate", "--generator", n] for n in GENERATORS),
    ],
)
def test_help_does_not_import_torch(words):
    program = (
        "import sys; from viewgen.cli import main\n"
        f"sys.argv = ['viewgen', *{words}, '--help']\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0 and "usage: viewgen" in ended.stdout, ended.stderr
