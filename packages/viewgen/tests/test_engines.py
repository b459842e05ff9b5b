"""One process, several, or a Ray cluster, some of them killed: the same files."""

import gc
import multiprocessing
import os
import shutil
import signal
import time
import weakref
from pathlib import Path

import pytest

from viewgen import GeneratorSpec, RunSummary, generate_views, load_generator, merge_journals, read_image, verify_views
from viewgen.run.local_engine import _receive, _Worker


def content(views: Path) -> dict[str, bytes]:
    return {path.relative_to(views).as_posix(): path.read_bytes() for path in sorted(views.rglob("*.png"))}


@pytest.fixture(scope="module")
def spec(trained) -> GeneratorSpec:
    return GeneratorSpec("eldm", {"folder": str(trained), "steps": 3})


@pytest.fixture(scope="module")
def make(images, embeddings, spec):
    """Five views of each of 14 images, three at a time: 24 chunks, the last of one view."""

    def generate(views: Path, **options) -> RunSummary:
        options = {"views_per_image": 5, "batch_size": 3, "embeddings": embeddings, **options}
        return generate_views(images, views, options.pop("generator", spec), **options)

    return generate


@pytest.fixture(scope="module")
def alone(make, tmp_path_factory) -> Path:
    views = tmp_path_factory.mktemp("alone")
    assert make(views).written == 70
    merge_journals(views)
    return views


def assert_the_same(views: Path, alone: Path) -> None:
    assert content(views) == content(alone)
    assert merge_journals(views).read_bytes() == (alone / "manifest.parquet").read_bytes()
    assert verify_views(views, check_bytes=True).clean
    assert {path.name for path in views.iterdir()} == {path.name for path in alone.iterdir()}


def test_another_batch_size_changes_a_view_by_rounding_at_most(make, alone, tmp_path):
    make(tmp_path, batch_size=16)
    assert content(tmp_path).keys() == content(alone).keys()
    for name in content(alone):
        one, other = (read_image(root / name).int() for root in (alone, tmp_path))
        assert (one - other).abs().max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_processes_makes_the_same_files(make, alone, tmp_path, count):
    settled = []
    summary = make(tmp_path, devices=["cpu"] * count, workers=2, on_progress=lambda *counts: settled.append(counts))
    assert (summary.written, summary.failed) == (70, 0)
    assert settled[-1] == (70, 70)
    assert_the_same(tmp_path, alone)


@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(make, alone, tmp_path):
    killed = []

    def kill_one(settled: int, wanted: int) -> None:
        if not killed:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.warns(UserWarning, match="the others take over"):
        summary = make(tmp_path, devices=["cpu", "cpu"], on_progress=kill_one)
    assert killed
    assert summary.written == 70
    assert_the_same(tmp_path, alone)


@pytest.mark.slow
def test_when_all_processes_are_dead_the_next_call_goes_on(make, alone, tmp_path):
    def kill_all(settled: int, wanted: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.warns(UserWarning), pytest.raises(ValueError, match="all workers died"):
        make(tmp_path, devices=["cpu", "cpu"], on_progress=kill_all)
    assert 0 < make(tmp_path).already < 70
    assert_the_same(tmp_path, alone)


MODEL_FILES = (
    *("model_index.json", "condition/config.json", "condition/model.safetensors", "scheduler/scheduler_config.json"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
)


@pytest.mark.parametrize("file", MODEL_FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "another"])
def test_a_damaged_model_is_a_one_line_error(trained, tmp_path, file, damage):
    folder = shutil.copytree(trained, tmp_path / "eldm")
    whole = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage != "missing":
        (folder / file).write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "another": b"[]"}[damage])
    with pytest.raises(ValueError, match=str(folder)) as error:
        load_generator("eldm", folder=folder)
    assert "\n" not in str(error.value)


def test_unknown_options_of_a_generator_are_a_type_error(trained):
    with pytest.raises(TypeError, match="'stepps'"):
        load_generator("eldm", folder=trained, stepps=3)


@pytest.mark.slow
def test_the_error_of_a_process_is_one_line(make, images, trained, tmp_path, capfd):
    with pytest.raises(ValueError, match="expected a trained E-LDM"):
        make(tmp_path / "views", generator=GeneratorSpec("eldm", {"folder": str(images)}), devices=["cpu", "cpu"])
    damaged = shutil.copytree(trained, tmp_path / "eldm")
    (damaged / "condition/model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="its files are damaged or of another kind"):
        make(tmp_path / "views", generator=GeneratorSpec("eldm", {"folder": str(damaged)}), devices=["cpu", "cpu"])
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="expected no strength"):
        make(tmp_path / "others", strength=0.5, devices=["cpu", "cpu"])


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(make, alone):
    assert make(alone, devices=["cpu", "cpu"]).already == 70
    for options in ({"devices": ["cpu"]}, {"engine": "ray"}, {}):
        with pytest.raises(ValueError, match="seed was 0, now 1"):
            make(alone, seed=1, **options)


@pytest.fixture(scope="module")
def cluster():
    """A real cluster of this machine alone, whose actors use this very environment."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[data]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def ray_actors() -> list[int]:
    """The processes of this run's actors."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.slow
def test_ray_makes_the_same_files_though_an_actor_is_killed(make, alone, tmp_path, cluster):
    killed = []

    def kill_one(settled: int, wanted: int) -> None:
        actors = ray_actors()
        if not killed and len(actors) == 2:
            killed.append(actors[0])
            os.kill(actors[0], signal.SIGKILL)

    slow = {"on_progress": kill_one, "engine": "ray", "actors": 2, "batch_size": 3}
    summary = make(tmp_path, **slow)
    assert killed
    assert summary.written == 70
    assert_the_same(tmp_path, alone)
    assert len(list((tmp_path / "journals").glob("*.jsonl"))) >= 3
    assert make(tmp_path, **slow).already == 70


@pytest.mark.slow
def test_ray_tells_a_mistake_in_one_line(make, images, tmp_path, cluster):
    began = time.monotonic()
    with pytest.raises(ValueError, match="expected no strength"):
        make(tmp_path, engine="ray", actors=1, strength=0.5)
    assert time.monotonic() - began < 60


class Mistake(ValueError):
    """Unlike a ValueError, it can be referred to weakly."""


def test_the_error_of_a_process_is_freed_without_garbage_collection():
    ours, theirs = multiprocessing.Pipe()
    theirs.send(Mistake("no such folder"))
    gc.disable()
    try:
        try:
            _receive(_Worker(multiprocessing.Process(), ours, "cpu"))
        except Mistake as error:
            freed = weakref.ref(error)
        assert freed() is None
    finally:
        gc.enable()
