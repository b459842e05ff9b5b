"""Table of the quickstart, and its summary in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

import ssl_eval

ROWS = ("untrained", "hand-made", "generative")
LABELS = {
    "untrained": "an untrained network",
    "hand-made": "hand-made views only",
    "generative": "with generative views",
}


def accuracy_table(results: Sequence[ssl_eval.Result]) -> ssl_eval.Table:
    """Return a row per variant and a column per task: the mean over seeds and its standard error."""
    tasks = list(dict.fromkeys(result.task for result in results))
    rows = [
        (LABELS[row], *(ssl_eval.format_mean_with_error(_values(results, row, task)) for task in tasks)) for row in ROWS
    ]
    return ssl_eval.Table(header=("", *tasks), rows=rows, title="top-1 accuracy in percent on held-out images")


def sentences(results: Sequence[ssl_eval.Result], agreement: dict[str, float] | None) -> list[str]:
    """Summarize the table: gains over an untrained network, generative against hand-made views, class agreement."""
    summary = []
    for task in dict.fromkeys(result.task for result in results):
        untrained, hand_made, generative = (_values(results, row, task) for row in ROWS)
        summary.append(
            f"{task}: hand-made views gain {mean(hand_made) - mean(untrained):+.1f} points over an untrained network; "
            + _compare(generative, hand_made)
        )
    if agreement:
        summary.append(
            f"{agreement['views']:.1f}% of the views keep the class of their image, according to a classifier trained "
            f"with labels that is right on {agreement['test_images']:.1f}% of the test images "
            f"({agreement['other_images']:.1f}% of the views have the class of another image)"
        )
    return summary


def _compare(first: list[float], second: list[float]) -> str:
    """Compare generative with hand-made views, in percentage points and standard errors."""
    difference = mean(first) - mean(second)
    if len(first) < 2:
        return f"generative views differ by {difference:+.1f} points, for one seed (--seeds 3 gives standard errors)"
    error = math.hypot(ssl_eval.standard_error(first), ssl_eval.standard_error(second))
    errors = abs(difference) / error if error else math.inf if difference else 0.0
    verdict = "better than" if difference > 0 else "worse than"
    verdict = verdict if errors > 2 else "no different from"
    return (
        f"generative views are {verdict} hand-made ones ({difference:+.1f} points, {errors:.1f} standard errors of the "
        f"difference, {len(first)} seeds)"
    )


def _values(results: Sequence[ssl_eval.Result], row: str, task: str) -> list[float]:
    return [result.value for result in results if (result.recipe, result.task) == (row, task)]
