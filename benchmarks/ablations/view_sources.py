"""Accuracy of encoders by source of views, and how often the views keep the class of their image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.ablations import run_app
from benchmarks.ablations.encoders import measure_accuracies
from genviews_core.files import writing
from ssl_eval import Result, Table, append_results, format_mean_with_error, read_results, standard_error
from viewgen.manifest import open_manifest

HAND_MADE = "hand-made views only"
RESERVED = ("hand-made", HAND_MADE)  # the folder and the row of the encoders without synthetic views
TASKS = ("knn", "linear")
COST_BENEFIT = Path(__file__).resolve().parents[1] / "cost_benefit"


@dataclass(frozen=True, kw_only=True)
class ViewSources:
    """kNN and linear accuracy by source of views; the same command continues an interrupted run."""

    data: Path
    """Folder of training images, one folder per class; pretraining does not read the classes."""
    test: Path
    """Folder of test images, one folder per class."""
    views: tuple[str, ...]
    """NAME=FOLDER for each source, with views of all training images."""
    classifier: str | None = None
    """Classifier for the class agreement, as for `benchmarks/cost_benefit agreement`; without it there is no figure."""
    labelled: Path | None = None
    """Labeled images for kNN classification, if the classifier is an encoder."""
    recipe: str = "small-simclr"
    epochs: int = 20
    probabilities: tuple[float, ...] = (1.0,)
    """Probabilities of a synthetic view in a pair; one row per source and probability."""
    rows: tuple[str, ...] = ()
    """Rows to train; all by default. Processes that share --out may share the rows."""
    seeds: int = 3
    """Number of encoders trained for each row."""
    out: Path = Path("runs/view-sources")
    """Runs, results.jsonl, and with a classifier agreement.png: accuracy against class agreement."""
    device: str = "auto"


@dataclass(frozen=True)
class Arm:
    """A row of the table: a source of views and how often pairs use it; without a source, hand-made views only."""

    source: str | None = None
    probability: float = 1.0

    @property
    def name(self) -> str:
        """Return the name of the row."""
        if self.source is None:
            return HAND_MADE
        return self.source if self.probability == 1 else f"{self.source}, probability {self.probability:g}"

    @property
    def folder(self) -> str:
        """Return the name of the folder of its runs."""
        return RESERVED[0] if self.source is None else self.name.replace(", probability ", "-")


def source_folders(options: ViewSources) -> dict[str, Path]:
    """Return the folder of views of each source.

    Raises:
        ValueError: not NAME=FOLDER, or a name is given twice or reserved.
    """
    folders: dict[str, Path] = {}
    for text in options.views:
        name, equals, folder = text.partition("=")
        if not equals or not name or name in folders or "/" in name:
            raise ValueError(f"expected views as NAME=FOLDER, each name once, got {text!r}")
        if name in RESERVED:
            raise ValueError(f"expected a name of views other than {', '.join(RESERVED)}, got {text!r}; choose another")
        folders[name] = Path(folder)
    return folders


def arms(options: ViewSources) -> list[Arm]:
    """Return the rows to train: hand-made views, then every source at every probability.

    Raises:
        ValueError: a probability is outside (0, 1], or ``rows`` names an unknown row.
    """
    if wrong := [value for value in options.probabilities if not 0 < value <= 1]:
        raise ValueError(f"expected probabilities in (0, 1], got {wrong[0]:g}")
    every = [Arm(), *(Arm(name, value) for name in source_folders(options) for value in options.probabilities)]
    known = {arm.name: arm for arm in every}
    if unknown := [name for name in options.rows if name not in known]:
        raise ValueError(f"expected rows among {', '.join(map(repr, known))}, got {unknown[0]!r}")
    return [known[name] for name in options.rows] if options.rows else every


def train_arms(options: ViewSources) -> Iterator[str]:
    """Train and evaluate one encoder after the other, every row of a seed before the next seed.

    Yields:
        The row's name, after its results are in OUT/results.jsonl.

    Raises:
        ValueError: an option is wrong or views cannot be read, which is checked before anything is trained, or a run
            failed.
    """
    folders, chosen, results = source_folders(options), arms(options), options.out / "results.jsonl"
    for views in folders.values():
        open_manifest(views)
    class_agreements(options)
    for seed in range(options.seeds):
        for arm in chosen:
            folder = options.out / arm.folder / f"seed-{seed}"
            _train(options, arm, folders, seed, folder)
            measured = measure_accuracies(
                folder / "backbone",
                name=arm.name,
                seed=seed,
                data=options.data,
                test=options.test,
                results=results,
                device=options.device,
            )
            append_results(results, measured)
            yield arm.name


def _train(options: ViewSources, arm: Arm, folders: Mapping[str, Path], seed: int, folder: Path) -> None:
    arguments: list[object] = [options.recipe, "--data", options.data, "--out", folder, "--epochs", options.epochs]
    arguments += ["--seed", seed, "--device", options.device, "--no-probe"]
    if arm.source is not None:
        arguments += ["--views", folders[arm.source], "--view-probability", arm.probability]
    run_app.run(run_app.PRETRAIN, arguments, f"{arm.name}, seed {seed}", log=folder / "pretrain.txt")


def class_agreements(options: ViewSources) -> dict[str | None, float]:
    """Return the class agreement of each source in percent.

    `benchmarks/cost_benefit agreement` measures each source once, and OUT/agreement keeps the results; empty without a
    classifier.

    Raises:
        ValueError: the classifier cannot be read, or has other classes; with the program's message.
    """
    if options.classifier is None:
        return {}
    found: dict[str | None, float] = {}
    for name, folder in source_folders(options).items():
        path = options.out / "agreement" / f"{name}.jsonl"
        if len(read_results(path)) < 3:  # the images, their views, views of other images
            path.unlink(missing_ok=True)
            arguments: list[object] = ["agreement", options.data, folder, "--classifier", options.classifier]
            arguments += ["--labelled", options.labelled] if options.labelled is not None else []
            arguments += ["--device", options.device, "--out", path]
            run_app.run(COST_BENEFIT, arguments, f"agreement of {name}", log=path.with_suffix(".txt"))
        found[name] = read_results(path)[1].value
    return found


def source_table(options: ViewSources) -> Table:
    """Return a row per arm, from the results alone: class agreement, and mean and standard error of the accuracies."""
    results, agreement = read_results(options.out / "results.jsonl"), class_agreements(options)
    rows = []
    for arm in arms(options):
        values = [accuracies(results, arm.name, task) for task in TASKS]
        kept = f"{agreement[arm.source]:.1f}" if arm.source in agreement else ""
        rows.append((arm.name, kept, *map(format_mean_with_error, values), str(len(values[0]))))
    return Table(header=("views", "class agreement", "kNN", "linear", "seeds"), rows=rows)


def draw_figure(options: ViewSources, path: Path) -> None:
    """Draw accuracy against class agreement: a point per source and task with its standard error.

    Hand-made views are horizontal lines.
    """
    import matplotlib.pyplot as plt

    results, agreement = read_results(options.out / "results.jsonl"), class_agreements(options)
    measured = [arm for arm in arms(options) if arm.source in agreement]
    figure, axes = plt.subplots(figsize=(5.2, 3.6))
    for task, color in zip(TASKS, ("#1f5fa8", "#c2571a"), strict=True):
        if hand_made := accuracies(results, HAND_MADE, task):
            axes.axhline(mean(hand_made), color=color, linewidth=1, linestyle="--")
        shown = [arm for arm in measured if accuracies(results, arm.name, task)]
        values = [accuracies(results, arm.name, task) for arm in shown]
        axes.errorbar(
            [agreement[arm.source] for arm in shown],
            [mean(some) for some in values],
            yerr=[standard_error(some) if len(some) > 1 else 0.0 for some in values],
            fmt="o",
            color=color,
            capsize=3,
            label="kNN" if task == "knn" else task,
        )
    for arm in measured:
        if values := accuracies(results, arm.name, "linear"):
            axes.annotate(
                arm.name,
                (agreement[arm.source], mean(values)),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    axes.set_xlabel("views with the class of their image, %")
    axes.set_ylabel("top-1, %  (dashed: hand-made views only)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.12)
    figure.tight_layout()
    with writing(path):
        figure.savefig(path, dpi=150)
    plt.close(figure)


def accuracies(results: Sequence[Result], name: str, task: str) -> list[float]:
    """Return the accuracies of a row in percent, one per seed."""
    return [found.value for found in results if (found.recipe, found.task, found.metric) == (name, task, "top1")]
