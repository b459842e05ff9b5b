"""Kill -9 at random moments, and two processes for one."""

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from viewgen import merge_journals, verify_views

JOBS = Path(__file__).with_name("jobs.py")


def start(job: str, root: Path, *ranks: int) -> subprocess.Popen:
    command = [sys.executable, str(JOBS), job, str(root), *map(str, ranks)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_when(process: subprocess.Popen, reached, wait: float) -> None:
    """Kill -9 ``wait`` seconds after ``reached()`` holds; the job must still be at work then."""
    limit = time.monotonic() + 120
    while not reached() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(wait)
    assert process.poll() is None, "the job ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def jobs():
    """The same jobs, to run in this process."""
    specification = importlib.util.spec_from_file_location("jobs", JOBS)
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(JOBS.parent))
        specification.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path, images, embeddings, trained):
    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copytree(images, folder / "images")
        shutil.copytree(Path(embeddings.vectors.filename).parent, folder / "embedded")
        shutil.copytree(trained, folder / "model")
        return folder

    return make


def content(folder: Path, *suffixes: str) -> dict[str, bytes]:
    """By path; folders that vanish meanwhile do no harm."""
    files = sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.suffix in suffixes}


@pytest.mark.slow
def test_killed_generation_ends_with_the_same_bytes(root, jobs):
    whole, killed = root("whole"), root("killed")
    jobs.generate(whole)
    moments = random.Random(0)
    for views in (1, 22):
        count = views + moments.randrange(8)
        kill_when(start("generate", killed), lambda count=count: len(content(killed / "views", ".png")) >= count, 0.0)
    jobs.generate(killed)
    expected = content(whole / "views", ".png")
    assert len(expected) == 42
    assert content(killed / "views", ".png") == expected
    assert verify_views(killed / "views", check_bytes=True).clean
    assert merge_journals(killed / "views").read_bytes() == merge_journals(whole / "views").read_bytes()
    assert not list((killed / "views").rglob("*.tmp"))


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(root, jobs):
    whole, killed = root("whole"), root("killed")
    jobs.train(whole)
    state = killed / "eldm" / "training_state.pt"
    moments = random.Random(1)
    for _ in range(2):
        kill_when(start("train", killed), saved_again(state), moments.uniform(0, 0.3))
    jobs.train(killed)
    expected = content(whole / "eldm", ".safetensors", ".json")
    assert {"unet/diffusion_pytorch_model.safetensors", "condition/model.safetensors"} < expected.keys()
    assert content(killed / "eldm", ".safetensors", ".json") == expected


@pytest.mark.slow
def test_killed_training_on_latents_ends_with_the_same_files(root, jobs):
    """Killed once while the autoencoder learns, once while the diffusion model does."""
    whole, killed = root("whole"), root("killed")
    jobs.train_latents(whole)
    moments = random.Random(2)
    for part in ("coder", "eldm"):
        state = killed / part / "training_state.pt"
        kill_when(start("train_latents", killed), saved_again(state), moments.uniform(0, 0.2))
        assert not (killed / part / "model_index.json").exists()
    jobs.train_latents(killed)
    for part in ("coder", "eldm"):
        expected = content(whole / part, ".safetensors", ".json", ".npy")
        assert content(killed / part, ".safetensors", ".json", ".npy") == expected
    assert {Path(name).name for name in expected} > {"about.json", "000000000000.npy", "model_index.json"}


def saved_again(state: Path):
    """Whether the state was written since this call."""
    before = state.stat().st_mtime_ns if state.exists() else 0
    return lambda: state.exists() and state.stat().st_mtime_ns > before


@pytest.mark.slow
def test_two_processes_are_one(root, jobs):
    folder = root("ranks")
    jobs.save_untrained_coder(folder / "untrained")
    processes = [start("share_work", folder, rank, 2) for rank in range(2)]
    jobs.share_work(folder, 0, 1)
    for process in processes:
        assert process.wait(timeout=180) == 0
    for one, two in zip(*(torch.load(folder / f"gradients-{world}.pt") for world in (1, 2)), strict=True):
        assert max(value.abs().max() for value in one.values()) > 1e-2
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    alone, shared = folder / "by-1", folder / "by-2"
    network = "diffusion_pytorch_model.safetensors"
    for name in (f"pixels/unet/{network}", f"coder/{network}", f"latents/unet/{network}"):
        weights = [load_file(by / name) for by in (alone, shared)]
        assert max((weights[0][key] - weights[1][key]).abs().max() for key in weights[0]) < 1e-3
    shards = content(alone / "cache", ".npy")
    assert len(shards) == 4
    assert content(shared / "cache", ".npy") == shards
