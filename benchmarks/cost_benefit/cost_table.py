r"""Cost and benefit of views compared with crop, jitter and blur: GenCL's Table 4, with the published results.

    uv run benchmarks/cost_benefit cost IMAGES VIEWS [VIEWS ...] --inception pt_inception-2015-12-05-6726825d.pth
    uv run benchmarks/cost_benefit cost IMAGES VIEWS --features runs/dino/backbone --results runs/results.jsonl \
        --generators "VIEWS=eldm --folder runs/eldm --encoder runs/dino/backbone"

Rows are named by folder. Published results are for ImageNet's training set and Inception features; results with other
images or features are comparable only with each other.
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
    """Return the table for command-line arguments."""
    options = tyro.cli(Cost, description=__doc__, args=arguments)
    accuracies = linear_top1(options.results)
    rows = measure(options)
    table = tabulate(rows, accuracies)
    if options.out is not None:
        write(options, rows, table)
    return replace(table, title="ours (published by GenCL)", caption=caption(rows))


def linear_top1(path: Path | None) -> dict[str, dict[int, float]]:
    """Return linear top-1 by recipe and seed from a file of results.

    Raises:
        ValueError: the file does not exist or has no linear top-1.
    """
    if path is None:
        return {}
    found: dict[str, dict[int, float]] = {}
    for result in ssl_eval.read_results(path):
        if (result.task, result.metric) == ("linear", "top1"):
            found.setdefault(result.recipe, {})[result.seed] = result.value
    if not found:
        raise ValueError(
            f"expected linear top-1 results in {path}, got none; run apps/evaluate with --name ROW for each backbone"
        )
    return found


def tabulate(rows: Sequence[Row], accuracies: Mapping[str, dict[int, float]]) -> ssl_eval.Table:
    """Tabulate our results with published ones in brackets, and rows of the paper that we have no results for."""
    header = ["views", "pairs", "linear top-1", "FID", "SSIM", "LPIPS", "cosine", "ms", "parameters", "lost"]
    lines = [_line(row.name, row, accuracies.get(row.name, {}), GENCL.get(row.kind)) for row in rows]
    kinds = {row.kind for row in rows}
    lines += [_line(published.name, None, {}, published) for kind, published in GENCL.items() if kind not in kinds]
    return _without_empty(header, lines)


def _line(name: str, row: Row | None, top1: dict[int, float], published: Published | None) -> tuple[str, ...]:
    found = row.metrics if row else None
    return (
        name,
        f"{found.pairs}" if found else "",
        _both(format_mean(list(top1.values())), published and f"{published.top1:.1f}"),
        _both(_written(found and found.fid, ".2f"), published and f"{published.fid:.2f}"),
        _both(_written(found and found.ssim, ".3f"), published and f"{published.ssim:.2f}"),
        _written(found and found.lpips, ".3f"),
        _written(found and found.cosine, ".3f"),
        _both(_written(found and found.milliseconds, ".2f"), published and f"{published.milliseconds:.2f}"),
        _both(_millions(found and found.parameters), published and _millions(published.parameters)),
        f"{row.lost}" if row and row.lost else "",
    )


def _both(ours: str, published: str | None) -> str:
    return " ".join([ours] * bool(ours) + [f"({published})"] * bool(published))


def _written(value: float | None, places: str) -> str:
    return "" if value is None else format(value, places)


def _millions(value: float | None) -> str:
    return "" if not value else f"{value / 1e6:.{0 if value >= 1e8 else 1}f}M"


def _without_empty(header: Sequence[str], lines: Sequence[tuple[str, ...]]) -> ssl_eval.Table:
    """Return a table without empty columns."""
    kept = [place for place in range(len(header)) if any(line[place] for line in lines)]
    return ssl_eval.Table(
        header=tuple(header[place] for place in kept), rows=[tuple(line[place] for place in kept) for line in lines]
    )


def caption(rows: Sequence[Row]) -> str:
    """Return the caption: the networks used and the machine."""
    found = rows[0].metrics
    networks = [f"FID by {found.fid_features}"] if found.fid_features else []
    networks += [found.lpips_network] if found.lpips_network else []
    networks += [f"cosine by {found.cosine_encoder}"] if found.cosine_encoder else []
    return "; ".join([*networks, ssl_eval.machine()])


def write(options: Cost, rows: Sequence[Row], table: ssl_eval.Table) -> None:
    """Append a JSON line per value, and write the table beside them."""
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
