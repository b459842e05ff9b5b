"""The ablations as a user runs them, from images to a table; all programs in this process, which loads them once."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.ablations import run_app
from pairdata import write_scenes
from tests.in_process import run_program

ROOT = Path(__file__).resolve().parent.parent
ABLATIONS = ROOT / "benchmarks" / "ablations"
pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch):
    """run(program, *arguments): what it prints. What an ablation starts runs here as well, one program in another."""
    monkeypatch.setenv("COLUMNS", "200")

    monkeypatch.setattr(run_app, "run", lambda program, arguments, name, **about: run_program(program, *arguments))
    return run_program


def rows(printed: str) -> list[list[str]]:
    """The cells of the table that was printed."""
    shown = [line for line in printed.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown]


@pytest.fixture
def images(tmp_path) -> Path:
    write_scenes(tmp_path / "scenes", count=12, seed=0)
    return tmp_path / "scenes" / "images"


@pytest.fixture(scope="module")
def more_images(tmp_path_factory) -> Path:
    """As many as a step of the small recipes and kNN's 200 neighbours need."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, count=208, seed=0)
    return root / "images"


def test_a_latent_model_of_ones_own_images_is_trained_and_its_sampling_measured(run, images, backbone, tmp_path):
    out, train = tmp_path / "eldm", ROOT / "apps" / "train_generator"
    command = [images, "--encoder", backbone, "--out", out, "--preset", "64-small", "--device", "cpu"]
    short = ["--steps", 2, "--batch-size", 4, "--autoencoder-steps", 2, "--autoencoder-batch-size", 4]
    assert f"diffusion model: {out}" in run(train, *command, *short).replace("\n", "")
    assert (out / "autoencoder" / "diffusion_pytorch_model.safetensors").exists()
    assert len(list((out / "latents").rglob("*.npy"))) == 1
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    run(train, *command, *short)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == written
    options = ["--images", 4, "--steps", 2, "--guidance", 2, "--reference-steps", 3]
    shown = rows(run(ABLATIONS, "sampling", out, "--encoder", backbone, *options))
    assert [row[:3] for row in shown] == [["2", "ddim", "3"], ["2", "ddim", "2"], ["2", "dpm", "2"]]
    assert [row[3] == "" for row in shown] == [True, False, False]


def test_the_table_of_weights_is_made_of_the_results_and_nothing_is_measured_twice(run, more_images, tmp_path):
    out = tmp_path / "out"
    command = ["quality", "--data", more_images, "--test", more_images, "--out", out, "--epochs", 2]
    command += ["--seeds", 1, "--device", "cpu", "--scorers", "self", "--gammas", 20]
    shown = rows(run(ABLATIONS, *command))
    assert [row[0] for row in shown] == ["equal weights", "self, gamma 20"]
    assert shown[0][-2:] == ["", ""] and 0 < float(shown[1][-2]) < 100
    before = (out / "results.jsonl").read_bytes()
    results = [json.loads(line) for line in before.splitlines()]
    assert [result["task"] for result in results] == ["knn", "linear", "knn", "linear", "pairs", "pairs"]
    logged = [json.loads(line) for line in (out / "self-gamma-20" / "seed-0" / "log.jsonl").read_text().splitlines()]
    assert results[4]["value"] == pytest.approx(100 * sum(row["effective_share"] for row in logged) / len(logged))
    assert rows(run(ABLATIONS, *command)) == shown
    assert (out / "results.jsonl").read_bytes() == before


def write_views(images: Path, views: Path) -> None:
    """A view of each image, itself mirrored, with the journal that tells of it."""
    found = []
    for path in sorted(images.rglob("*.png")):
        key = path.relative_to(images).as_posix()
        found.append({"key": key, "k": 0, "path": f"{key}.0.png"})
        (views / key).parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(views / found[-1]["path"])
    (views / "journals").mkdir()
    (views / "journals" / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def test_a_row_of_a_papers_table_is_trained_and_measured(run, more_images, tmp_path):
    write_views(more_images, tmp_path / "views")
    command = ["pairwise_augmentations", "--grid", "small", "--train", more_images, "--test", more_images]
    command += ["--views", tmp_path / "views", "--out", tmp_path / "out", "--device", "cpu", "--epochs", 1]
    shown = rows(run(ABLATIONS, *command, "--rows", "flip, generative"))
    kept = ("crop", "flip", "solarize", "jitter", "gray")
    assert [row[0] for row in shown] == ["generative", *(f"{each}, generative" for each in kept)]
    assert all(0 < float(cell) <= 100 for cell in shown[2][1:]) and not any(shown[1][1:])
    folder = tmp_path / "out" / "pairwise-augmentations" / "small-vicreg-1-epochs" / "flip-generative" / "seed-0"
    recipe = json.loads((folder / "backbone" / "backbone.json").read_text())["recipe"]
    first = recipe["augmentation"]["first"]
    assert (first["crop_scale"], first["flip"], first["jitter"], first["gray_p"]) == ([1.0, 1.0], 0.5, None, 0.0)
    assert (recipe["policy"], recipe["view_probability"]) == ("genview", 1.0)
