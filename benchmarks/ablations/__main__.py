r"""Ablations: one component changed, everything else fixed.

    uv run benchmarks/ablations sampling runs/quickstart/generator --embeddings runs/quickstart/embeddings \
        --encoder runs/quickstart/hand-made/seed-0/backbone
    uv run benchmarks/ablations sanity-check --data TRAIN --test TEST [--views VIEWS] [--interpolated MIXED]
    uv run benchmarks/ablations quality --data TRAIN --test TEST --views VIEWS --pca FILE --scorer FILE
    uv run benchmarks/ablations views --data TRAIN --test TEST --views retrieval=RETRIEVED eldm=VIEWS --classifier FILE

Tables of the papers, with our results beside the published ones; `--grid small` takes minutes on a CPU:

    uv run benchmarks/ablations view_probability --train TRAIN --test TEST --views VIEWS --processes 8
    uv run benchmarks/ablations components --train TRAIN --test TEST --views CONSTANT --adaptive ADAPTIVE --pca FILE
    uv run benchmarks/ablations noise_strategy --train TRAIN --test TEST --views constant-0=VIEWS ... adaptive=VIEWS
    uv run benchmarks/ablations sampling_rate --grid mask-based --train TRAIN --test TEST --views VIEWS --lists LISTS
    uv run benchmarks/ablations pairwise_augmentations --train TRAIN --test TEST --views VIEWS --lists LISTS
    uv run benchmarks/ablations self_augmentations --train TRAIN --test TEST --views VIEWS --interpolated MIXED
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tyro
from rich.console import Console
from rich.progress import track

from benchmarks.ablations.gencl import PairwiseAugmentations, SamplingRate
from benchmarks.ablations.gensis import SelfAugmentations
from benchmarks.ablations.genview import Components, NoiseStrategy, ViewProbability
from benchmarks.ablations.quality import QualityAblation, cells, measure_quality, quality_table
from benchmarks.ablations.run_grid import PaperTable, fill_table, paper_table, selected_rows
from benchmarks.ablations.sampling import COLUMNS, SamplingAblation, measure_sampling
from benchmarks.ablations.sanity_check import COLUMNS as LEARNING
from benchmarks.ablations.sanity_check import SanityCheck, below_margin, run_sanity_check, sanity_rows, variants
from benchmarks.ablations.view_sources import ViewSources, arms, draw_figure, source_table, train_arms
from genviews_core.command import command
from ssl_eval import Table


def sampling(chosen: SamplingAblation) -> Table:
    """Return distances of views sampled in few steps, one row per sampler and number of steps."""
    total = len(chosen.guidance) * (1 + 2 * len(chosen.steps))
    rows = list(track(measure_sampling(chosen), "sampling", total, console=Console(stderr=True)))
    title = f"distance to DDIM in {chosen.reference_steps} steps from the same noise"
    return Table(header=COLUMNS, rows=rows, title=title)


def quality(chosen: QualityAblation) -> Table:
    """Return accuracies, one row per scorer and gamma."""
    total = chosen.seeds * len(cells(chosen))
    list(track(measure_quality(chosen), "encoders", total, console=Console(stderr=True)))
    return replace(quality_table(chosen), title=f"{chosen.recipe}, {chosen.epochs} epochs")


def views(chosen: ViewSources) -> Table:
    """Return accuracies and class agreement, one row per source of views; with a classifier also draw the figure."""
    total = chosen.seeds * len(arms(chosen))
    list(track(train_arms(chosen), "encoders", total, console=Console(stderr=True)))
    if chosen.classifier is not None:
        draw_figure(chosen, chosen.out / "agreement.png")
    return replace(source_table(chosen), title=f"{chosen.recipe}, {chosen.epochs} epochs of {chosen.data}")


def sanity_check(chosen: SanityCheck) -> Table:
    """Return the kNN accuracy of every small recipe and of the untrained encoder."""
    list(
        track(run_sanity_check(chosen), "encoders", chosen.seeds * len(variants(chosen)), console=Console(stderr=True))
    )
    title = f"{chosen.epochs} epochs of {chosen.data}"
    table = Table(header=LEARNING, rows=sanity_rows(chosen), title=title)
    if below := below_margin(chosen):
        Console(width=140).print(table)
        raise ValueError(
            f"expected at least {chosen.margin:g} points more than the untrained encoder, got less: {'; '.join(below)}"
        )
    return table


def of_paper(chosen: PaperTable) -> Table:
    """Return a table of a paper, with our results beside the published ones."""
    list(track(fill_table(chosen), "encoders", chosen.seeds * len(selected_rows(chosen)), console=Console(stderr=True)))
    return replace(paper_table(chosen), title=f"{chosen.folder.name} on {chosen.train}, accuracy in percent")


ABLATIONS: dict[str, tuple[type, Callable[[Any], Table]]] = {
    "sampling": (SamplingAblation, sampling),
    "quality": (QualityAblation, quality),
    "views": (ViewSources, views),
    "sanity-check": (SanityCheck, sanity_check),
    "view_probability": (ViewProbability, of_paper),
    "components": (Components, of_paper),
    "noise_strategy": (NoiseStrategy, of_paper),
    "sampling_rate": (SamplingRate, of_paper),
    "pairwise_augmentations": (PairwiseAugmentations, of_paper),
    "self_augmentations": (SelfAugmentations, of_paper),
}


@command
def main() -> None:
    """Run the named ablation and print its table; user errors are reported in one line."""
    options = {name: options for name, (options, _) in ABLATIONS.items()}
    chosen = tyro.extras.subcommand_cli_from_dict(options, description=__doc__)
    measure = next(measure for kind, measure in ABLATIONS.values() if type(chosen) is kind)
    Console(width=140).print(measure(chosen))


if __name__ == "__main__":
    main()
