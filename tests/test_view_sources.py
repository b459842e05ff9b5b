"""The ablation that compares sources of views: rows, agreement, table, figure, and the command as a user runs it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.ablations import view_sources
from pairdata import write_scenes
from ssl_eval import Result, append_result, read_results
from tests.in_process import run_program
from viewgen import generate_views, merge_journals


class Inverted:
    """Views that are the negatives of their images."""

    name = model_id = model_hash = "inverted"
    supervision, licence = "none", "CC0"

    def condition(self, images):
        return (255 - images).float()

    def generate(self, condition, *, seeds, strength=None):
        return condition.to(torch.uint8)


@pytest.fixture
def scenes(tmp_path) -> Path:
    write_scenes(tmp_path / "scenes", count=128, seed=0)
    return tmp_path / "scenes" / "images"


@pytest.fixture
def options(scenes, tmp_path) -> view_sources.ViewSources:
    generate_views(scenes, tmp_path / "negatives", Inverted())
    merge_journals(tmp_path / "negatives")
    return view_sources.ViewSources(
        data=scenes, test=scenes, views=(f"negatives={tmp_path / 'negatives'}",), seeds=2, out=tmp_path / "out"
    )


def add(path: Path, name: str, task: str, *values: float) -> None:
    about = {"metric": "top1", "protocol": "p", "data": "d", "machine": "m", "seconds": 1.0}
    for seed, value in enumerate(values):
        about |= {"backbone": f"{name}-{seed}", "seed": seed, "recipe": name}
        append_result(path, Result(task=task, value=value, **about))


def test_a_row_per_source_and_probability(options):
    found = view_sources.arms(replace(options, probabilities=(1.0, 0.5)))
    assert [(arm.name, arm.folder) for arm in found] == [
        ("hand-made views only", "hand-made"),
        ("negatives", "negatives"),
        ("negatives, probability 0.5", "negatives-0.5"),
    ]
    assert view_sources.arms(replace(options, rows=("negatives",))) == [view_sources.Arm("negatives")]


def test_mistakes_are_found_before_training(options, tmp_path):
    mistakes = {
        r"expected views as NAME=FOLDER": {"views": (str(tmp_path / "negatives"),)},
        r"expected a name of views other than hand-made": {"views": (f"hand-made={tmp_path / 'negatives'}",)},
        r"probabilities in \(0, 1\], got 0": {"probabilities": (0.0,)},
        r"expected rows among 'hand-made views only', 'negatives', got 'positives'": {"rows": ("positives",)},
        r"manifest": {"views": (f"a={tmp_path}",)},
    }
    for says, changes in mistakes.items():
        with pytest.raises(ValueError, match=says):
            next(view_sources.train_arms(replace(options, **changes)))
    assert not options.out.exists()


def test_an_interrupted_agreement_is_measured_again(options, backbone, scenes):
    options = replace(options, classifier=str(backbone), labelled=scenes, device="cpu")
    path = options.out / "agreement" / "negatives.jsonl"
    expected = view_sources.class_agreements(options)
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert view_sources.class_agreements(options) == expected and len(read_results(path)) == 3


def test_the_table_has_means_standard_errors_and_agreement(options, backbone, scenes, tmp_path):
    results = options.out / "results.jsonl"
    add(results, "hand-made views only", "knn", 40.0, 44.0)
    add(results, "hand-made views only", "linear", 50.0, 50.0)
    add(results, "negatives", "knn", 60.0)
    options = replace(options, classifier=str(backbone), labelled=scenes, device="cpu")
    rows = view_sources.source_table(options).rows
    agreement = view_sources.class_agreements(replace(options, classifier="gone"))  # measured already
    images, views, _ = read_results(options.out / "agreement" / "negatives.jsonl")
    assert agreement == {"negatives": views.value} and views.value < images.value
    assert list(rows) == [
        ("hand-made views only", "", "42.0 ± 2.0", "50.0 ± 0.0", "2"),
        ("negatives", f"{agreement['negatives']:.1f}", "60.0", "", "1"),
    ]
    view_sources.draw_figure(options, tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size[0] > 500


@pytest.mark.slow
def test_the_command_trains_every_row_once(options, backbone, scenes):
    arguments = ["views", "--data", scenes, "--test", scenes, "--views", *options.views, "--seeds", 1, "--epochs", 1]
    arguments += ["--classifier", backbone, "--labelled", scenes, "--device", "cpu", "--out", options.out]
    printed = run_program("benchmarks/ablations", *arguments)
    assert "hand-made views only" in printed and "negatives" in printed
    found = read_results(options.out / "results.jsonl")
    assert sorted((result.recipe, result.task) for result in found) == sorted(
        (name, task) for name in ("hand-made views only", "negatives") for task in ("knn", "linear")
    )
    assert (options.out / "agreement.png").is_file()
    again = run_program("benchmarks/ablations", *arguments)
    assert again.splitlines()[-8:] == printed.splitlines()[-8:]
    assert read_results(options.out / "results.jsonl") == found
