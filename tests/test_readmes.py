"""Every command in the code blocks of READMEs and of docs/ is accepted by the parser of its program."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("packages/*/README.md")))
PAGES = sorted(ROOT.glob("docs/**/*.md"))
INSTALLED = {
    "genviews": "genviews.cli",
    "viewgen": "viewgen.cli",
    "pairquality": "pairquality.cli",
    "sslzoo": "sslzoo.cli",
    "ssl-eval": "ssl_eval.cli",
}
OTHERS = (
    "pip",
    "uv",
    "bash",
    "pytest",
    "python",
    "from",
    "import",
    "for",
    "try",
    "except",
    "print",
    "network",
    "image",
    "read_rgb",
)
"""Other first words of lines in code blocks: tools, and Python code of the core README."""


class Parsed(BaseException):
    """Raised in place of running a program, after its options were parsed."""


def lines_of_page(text: str) -> list[str]:
    """Return the lines of a page's shell code blocks, and the commands in its text and tables if they have options."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"`(uv run [^`|]+ [^`|]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    inline = [line for line in inline if not line.split()[-1].startswith(("apps/", "benchmarks/"))]  # named, not run
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line.strip()]
    return [part.strip() for line in lines + inline for part in line.split(" && ")]


def lines_of(text: str) -> list[str]:
    """Return the lines of indented and shell code blocks, with lines joined at a backslash."""
    text = re.sub(r"```(?:bash|sh)\n(.*?)```", lambda found: re.sub(r"(?m)^", "    ", found[1]), text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"\\\n\s*", "", text)
    return [part.strip() for line in re.findall(r"(?m)^ {4}(\S.*)$", text) for part in line.split(" && ")]


def place_of_program(words: list[str]) -> int | None:
    """Return the position of the first program of this repository in a command line."""
    ours = [word in INSTALLED or word.startswith(("apps/", "benchmarks/")) for word in words]
    return ours.index(True) if any(ours) and words[0] not in ("pytest", "python") else None


def commands() -> dict[str, list[list[str]]]:
    """Return the argument lists of each program in all READMEs and pages."""
    found: dict[str, list[list[str]]] = {}
    for readme in (*READMES, *PAGES):
        for line in (lines_of_page if readme in PAGES else lines_of)(readme.read_text()):
            words = shlex.split(line, comments=True)
            place = place_of_program(words)
            if place is None:
                assert not words or words[0].startswith(OTHERS), f"{readme}: what is {line!r}?"
                continue
            arguments = [word.strip("[]") for word in words[place + 1 :]]
            if "--config" in arguments:  # reads the file of a run, which names the recipe; see test_run_config.py
                continue
            known = found.setdefault(words[place], [])
            if arguments not in known and not {"RECIPE", "NAME", "JOB", "..."} & set(arguments):  # placeholders
                known.append(arguments)
    return found


COMMANDS = commands()


def test_readmes_have_commands_of_every_program():
    assert {
        "apps/pretrain",
        "apps/evaluate",
        "apps/inspect",
        "viewgen",
        "pairquality",
        "sslzoo",
        "ssl-eval",
    } <= COMMANDS.keys()
    assert sum(map(len, COMMANDS.values())) >= 30


@pytest.mark.parametrize("program", COMMANDS)
def test_commands_in_readmes_parse(program, monkeypatch, capsys):
    def only_parse(parse):
        def parsed(*args, **options):
            parse(*args, **options)
            raise Parsed

        return parsed

    monkeypatch.setattr(tyro, "cli", only_parse(tyro.cli))
    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", only_parse(tyro.extras.subcommand_cli_from_dict))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse(argparse.ArgumentParser.parse_args))
    for arguments in COMMANDS[program]:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        try:
            if program in INSTALLED:
                __import__(INSTALLED[program], fromlist=["main"]).main()
            else:
                runpy.run_path(str(ROOT / program), run_name="__main__")
        except Parsed:
            continue
        except SystemExit as end:
            asked = {"--help", "--list"} & set(arguments)
            assert asked and not end.code, f"{program} {shlex.join(arguments)}: {capsys.readouterr().err or end.code}"
