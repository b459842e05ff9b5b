"""Plots of the quickstart: pairs of images, and loss curves."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from genviews_core.files import atomic_write

matplotlib.use("agg")
import matplotlib.pyplot as plt
from PIL import Image

import pairdata
from sslzoo import read_log

COLUMNS = ("real", "generated", "interpolated", "partner")
ROWS, GROUPS = 10, 2


def shown_keys(images: Path, count: int = ROWS * GROUPS) -> list[str]:
    """Return the keys of the images that `draw_pairs` shows, evenly spaced over the folder."""
    index = pairdata.index_images(images)
    return [index.key(number * len(index) // count) for number in range(min(count, len(index)))]


def draw_pairs(
    images: Path, views: Path, interpolated: Path, out: Path, *, rows: int = ROWS, groups: int = GROUPS
) -> None:
    """Draw a grid of images: real, generated from it, interpolated with a partner, the partner."""
    generated, mixed = pairdata.ViewsIndex(views), pairdata.ViewsIndex(interpolated, interpolated=True)
    figure, axes = plt.subplots(rows, groups * len(COLUMNS), figsize=(groups * 4.4, rows * 1.12), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, key in enumerate(shown_keys(images, rows * groups)):
        group, row = divmod(number, rows)
        cells = axes[row, group * len(COLUMNS) : (group + 1) * len(COLUMNS)]
        _draw_row(cells, key, images, views, interpolated, generated, mixed)
    for group in range(groups):
        for axis, name in zip(axes[0, group * len(COLUMNS) :], COLUMNS, strict=False):
            axis.set_title(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    _save(figure, out)


def _draw_row(cells, key: str, images: Path, views: Path, interpolated: Path, generated, mixed) -> None:
    paths = [images / key, *(views / path for path in generated.paths(key)[:1])]
    for path, (partner, alpha) in list(zip(mixed.paths(key), mixed.partners_of(key), strict=True))[:1]:
        paths += [interpolated / path, images / partner]
        cells[2].text(0.5, -0.02, f"α = {alpha:.2f}", ha="center", va="top", fontsize=6, transform=cells[2].transAxes)
    for axis, path in zip(cells, paths, strict=False):
        axis.imshow(_shown(path), interpolation="nearest")


def _shown(path: Path) -> Image.Image:
    image = pairdata.decode_rgb(path)
    image.thumbnail((256, 256))
    return image


def draw_curves(run: Path, out: Path) -> None:
    """Plot the loss of every log.jsonl below a folder: raw, and smoothed over a fiftieth of its length."""
    logs = {path.parent.relative_to(run): read_log(path) for path in sorted(run.rglob("log.jsonl"))}
    logs = {name: rows for name, rows in logs.items() if rows}
    if not logs:
        return
    figure, axes = plt.subplots(1, len(logs), figsize=(4 * len(logs), 3), squeeze=False)
    for axis, (name, rows) in zip(axes[0], logs.items(), strict=True):
        steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
        marker = "o" if len(steps) < 3 else None  # a line with one point is invisible
        axis.plot(steps, losses, alpha=0.25)
        axis.plot(steps, _smoothed(losses, max(1, len(losses) // 50)), color="C0", marker=marker)
        axis.set(title=str(name), xlabel="step", ylabel="loss")
    figure.tight_layout()
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    atomic_write(out, lambda temporary: figure.savefig(temporary, dpi=110, format=out.suffix[1:]))
    plt.close(figure)


def _smoothed(values: list[float], width: int) -> list[float]:
    """Return the running mean of each value and the `width` values before it."""
    return [sum(values[max(0, i - width) : i + 1]) / (i + 1 - max(0, i - width)) for i in range(len(values))]
