"""A latent diffusion model as a user trains it, with its own autoencoder, and the ablation of its sampling."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / program), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def images(tmp_path) -> Path:
    from pairdata import write_scenes

    write_scenes(tmp_path / "scenes", count=12, seed=0)
    return tmp_path / "scenes" / "images"


@pytest.mark.slow
def test_a_latent_model_of_ones_own_images_is_trained_and_its_sampling_measured(images, backbone, tmp_path):
    out = tmp_path / "eldm"
    command = [images, "--encoder", backbone, "--out", out, "--preset", "64-small", "--device", "cpu"]
    short = ["--steps", 2, "--batch-size", 4, "--autoencoder-steps", 2, "--autoencoder-batch-size", 4]
    assert f"diffusion model: {out}" in run("apps/train_generator", *command, *short).replace("\n", "")
    assert (out / "autoencoder" / "diffusion_pytorch_model.safetensors").exists()
    assert len(list((out / "latents").rglob("*.npy"))) == 1
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    run("apps/train_generator", *command, *short)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == written
    options = ["--images", 4, "--steps", 2, "--guidance", 2, "--reference-steps", 3]
    table = run("benchmarks/ablations", "sampling", out, "--encoder", backbone, *options)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows] == [["2", "ddim", "3"], ["2", "ddim", "2"], ["2", "dpm", "2"]]
    assert [row[3] == "" for row in rows] == [True, False, False]
