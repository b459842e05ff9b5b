r"""What views cost and bring, beside crop, jitter and blur: GenCL's Table 4, ours with the published figures.

    uv run benchmarks/cost_benefit cost IMAGES VIEWS [VIEWS ...] --inception pt_inception-2015-12-05-6726825d.pth
    uv run benchmarks/cost_benefit cost IMAGES VIEWS --features runs/dino/backbone --results runs/results.jsonl \
        --generators "VIEWS=eldm --folder runs/eldm --encoder runs/dino/backbone"

A row is called by its folder's name. Published figures are of ImageNet's training set, by Inception; other images or
features give figures that compare with one another alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tyro

import ssl_eval
from benchmarks.cost_benefit.comparison import Cost, Row, measure
from benchmarks.cost_benefit.published import GENCL, Published
from genviews_core.files import atomic_write
from ssl_eval.table import format_mean


def main(arguments: Sequence[str]) -> ssl_eval.Table:
    """The table for a command line."""
    options = tyro.cli(Cost, description=__doc__, args=arguments)
    accuracies = linear_top1(options.results)
    rows = measure(options)
    table = tabulate(rows, accuracies)
    if options.out is not None:
        write(options, rows, table)
    return replace(table, title="ours (published by GenCL)", caption=caption(rows))


def linear_top1(path: Path | None) -> dict[str, dict[int, float]]:
    """Linear top-1 by recipe and seed, from lines of results.

    Raises:
        ValueError: no such file, or no such result in it.
    """
    if path is None:
        return {}
    found: dict[str, dict[int, float]] = {}
    for result in ssl_eval.read_results(path):
        if (result.task, result.metric) == ("linear", "top1"):
            found.setdefault(result.recipe, {})[result.seed] = result.value
    if not found:
        raise ValueError(f"{path} has no linear top-1: apps/evaluate writes one a backbone, --name telling the row")
    return found


def tabulate(rows: Sequence[Row], accuracies: Mapping[str, dict[int, float]]) -> ssl_eval.Table:
    """Ours, with the published figure in brackets, and the paper's rows that we have nothing for."""
    header = ["views", "pairs", "linear top-1", "FID", "SSIM", "LPIPS", "cosine", "ms", "parameters", "lost"]
    lines = [_line(row.name, row, accuracies.get(row.name, {}), GENCL.get(row.kind)) for row in rows]
    kinds = {row.kind for row in rows}
    lines += [_line(told.name, None, {}, told) for kind, told in GENCL.items() if kind not in kinds]
    return _without_empty(header, lines)


def _line(name: str, row: Row | None, top1: dict[int, float], told: Published | None) -> tuple[str, ...]:
    found = row.metrics if row else None
    return (
        name,
        f"{found.pairs}" if found else "",
        _both(format_mean(list(top1.values())), told and f"{told.top1:.1f}"),
        _both(_written(found and found.fid, ".2f"), told and f"{told.fid:.2f}"),
        _both(_written(found and found.ssim, ".3f"), told and f"{told.ssim:.2f}"),
        _written(found and found.lpips, ".3f"),
        _written(found and found.cosine, ".3f"),
        _both(_written(found and found.milliseconds, ".2f"), told and f"{told.milliseconds:.2f}"),
        _both(_millions(found and found.parameters), told and _millions(told.parameters)),
        f"{row.lost}" if row and row.lost else "",
    )


def _both(ours: str, published: str | None) -> str:
    return " ".join([ours] * bool(ours) + [f"({published})"] * bool(published))


def _written(value: float | None, places: str) -> str:
    return "" if value is None else format(value, places)


def _millions(value: float | None) -> str:
    return "" if not value else f"{value / 1e6:.{0 if value >= 1e8 else 1}f}M"


def _without_empty(header: Sequence[str], lines: Sequence[tuple[str, ...]]) -> ssl_eval.Table:
    """A table of the columns that have something in them."""
    kept = [place for place in range(len(header)) if any(line[place] for line in lines)]
    return ssl_eval.Table(
        header=tuple(header[place] for place in kept), rows=[tuple(line[place] for place in kept) for line in lines]
    )


def caption(rows: Sequence[Row]) -> str:
    """By what was measured."""
    found = rows[0].metrics
    told = [f"FID by {found.fid_features}"] if found.fid_features else []
    told += [found.lpips_network] if found.lpips_network else []
    told += [f"cosine by {found.cosine_encoder}"] if found.cosine_encoder else []
    return "; ".join([*told, ssl_eval.machine()])


def write(options: Cost, rows: Sequence[Row], table: ssl_eval.Table) -> None:
    """A line for each figure, and the table beside them."""
    assert options.out is not None
    for row in rows:
        results = row.metrics.results(
            recipe=row.name,
            data=options.images.resolve().name,
            views=row.views,
            seed=options.seed,
            seconds=row.seconds,
        )
        ssl_eval.append_results(options.out, results)
    atomic_write(options.out.with_suffix(".md"), f"{table.markdown()}\n\n{caption(rows)}\n")
