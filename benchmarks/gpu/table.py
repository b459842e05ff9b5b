"""Markdown tables of the recorded results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.records import read_lines
from ssl_eval import format_mean_with_error

Line = dict[str, Any]
DEFAULT = Path(__file__).resolve().parent / "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Print Markdown tables of the results."""

    results: tuple[Path, ...] = (DEFAULT,)
    part: str | None = None
    """checks, throughput, tests, evidence or speedrun; default: all."""


def main(options: Tables) -> None:
    """Print the tables.

    Raises:
        ValueError: there are no results.
    """
    lines = [line for path in options.results for line in read_lines(path)]
    markdown = list(tables(line for line in lines if options.part in (None, line["part"])))
    if not markdown:
        files = ", ".join(map(str, options.results))
        raise ValueError(f"expected results in {files}, got none; run checks, evidence or speedrun with --results")
    print("\n\n".join(markdown))


def tables(lines: Iterable[Line]) -> Iterator[str]:
    """Yield tables of the tests, each kind of speed, the variants, the class agreement and the speed runs."""
    by_machine: dict[str, list[Line]] = {}
    for line in lines:
        by_machine.setdefault(line["machine"], []).append(line)
    for machine, found in by_machine.items():
        yield f"On {machine}, commit {', '.join(sorted({line['commit'] for line in found}))}:"
        yield from _tests(found)
        yield from _speeds(found)
        yield from _variants(found)
        yield from _plain(found, "class agreement", "views")
        yield from _plain(found, "generator", "diffusion model")
        yield from _speed_runs(found)


def markdown(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table with right-aligned numbers."""
    header = [str(cell) for cell in header]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _tests(lines: list[Line]) -> Iterator[str]:
    found = {line["about"]["test"]: line["figures"]["outcome"] for line in lines if line["name"] == "test"}
    if found:
        outcomes = sorted(set(found.values()))
        counts = ", ".join(f"{sum(each == outcome for each in found.values())} {outcome}" for outcome in outcomes)
        yield f"Tests on the device: {counts}."
        bad = [(name, outcome) for name, outcome in found.items() if outcome in ("FAILED", "ERROR")]
        if bad:
            yield markdown(("test", "outcome"), bad)


def _speeds(lines: list[Line]) -> Iterator[str]:
    kinds: dict[str, dict[tuple, Line]] = {}
    for line in lines:
        if line["part"] == "throughput":
            rows = kinds.setdefault(line["name"], {})
            rows[tuple(sorted((key, str(value)) for key, value in line["about"].items()))] = line
    for kind, rows in kinds.items():
        columns = list(dict.fromkeys(key for line in rows.values() for key in line["figures"]))
        yield f"{kind}:"
        yield markdown(columns, ([line["figures"].get(column, "") for column in columns] for line in rows.values()))


def _variants(lines: list[Line]) -> Iterator[str]:
    found: dict[tuple[str, int, int], dict[int, Line]] = {}
    for line in lines:
        about = line["about"]
        if line["part"] == "evidence" and "variant" in about:
            stand = about["generator_images"] if about["variant"] in ("generative", "interpolated") else 0
            found.setdefault((about["variant"], about["epochs"], stand), {})[about["seed"]] = line
    if found:
        header = ("views", "epochs", "seeds", "kNN", "linear", "class agreement", "images the model saw")
        yield markdown(header, (_variant_row(key, list(rows.values())) for key, rows in found.items()))


def _variant_row(key: tuple[str, int, int], lines: list[Line]) -> list[object]:
    variant, epochs, stand = key
    knn, linear = ([line["figures"][name] for line in lines] for name in ("knn", "linear"))
    agreement = lines[-1]["about"].get("agreement", {}).get(variant)
    kept = f"{agreement:.1f}%" if agreement is not None else ""
    return [variant, epochs, len(lines), format_mean_with_error(knn), format_mean_with_error(linear), kept, stand or ""]


def _plain(lines: list[Line], name: str, title: str) -> Iterator[str]:
    found = [line for line in lines if line["name"] == name]
    if found:
        columns = list(dict.fromkeys(key for line in found for key in line["figures"]))
        cells = ([line["figures"].get(column, "") for column in columns] for line in found)
        yield f"{title}:"
        yield markdown(columns, cells)


def _speed_runs(lines: list[Line]) -> Iterator[str]:
    found = [line for line in lines if line["part"] == "speedrun"]
    if found:
        header = ("speed run", "seconds", "kNN", "epochs of the schedule")
        rows = (
            (line["name"], line["figures"]["seconds"], line["figures"]["knn"], line["about"]["epochs"])
            for line in found
        )
        yield markdown(header, rows)
