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

from viewgen import fold_journals, verify_views

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
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes
    }


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
    assert fold_journals(killed / "views").read_bytes() == fold_journals(whole / "views").read_bytes()
    assert not list((killed / "views").rglob("*.tmp"))


def test_killed_training_ends_with_the_same_weights(root, jobs):
    whole, killed = root("whole"), root("killed")
    jobs.train(whole)
    state = killed / "eldm" / "training_state.pt"
    moments = random.Random(1)

    def saved_since(before: int):
        return lambda: state.exists() and state.stat().st_mtime_ns > before

    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        kill_when(start("train", killed), saved_since(before), moments.uniform(0, 0.3))
    jobs.train(killed)
    expected = content(whole / "eldm", ".safetensors", ".json")
    assert {"unet/diffusion_pytorch_model.safetensors", "condition/model.safetensors"} < expected.keys()
    assert content(killed / "eldm", ".safetensors", ".json") == expected


def test_two_processes_are_one(root, jobs):
    folder = root("ranks")
    processes = [start("gradients", folder, rank, 2) for rank in range(2)]
    jobs.gradients(folder, 0, 1)
    for process in processes:
        assert process.wait(timeout=180) == 0
    one, two = (torch.load(folder / f"gradients-{world}.pt", weights_only=True) for world in (1, 2))
    assert max(value.abs().max() for value in one.values()) > 1e-2
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    weights = [load_file(folder / f"eldm-{world}/unet/diffusion_pytorch_model.safetensors") for world in (1, 2)]
    drift = max((weights[0][name] - weights[1][name]).abs().max() for name in weights[0])
    assert drift < 1e-3
