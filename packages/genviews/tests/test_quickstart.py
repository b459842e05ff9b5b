"""The quickstart: its processes, its table, and the classifier that judges its views."""

import json
import multiprocessing
import os
import re
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import genviews
import pairdata
from genviews.end_to_end.jobs import FROM_ENCODER, set_aside
from genviews.end_to_end.oracle import train_classifier
from genviews.end_to_end.report import accuracy_table, sentences
from genviews.end_to_end.workers import start_workers
from genviews_core.progress import Progress
from ssl_eval import Result

SMALL = {"epochs": 1, "batch_size": 16, "generator_steps": 2, "sampling_steps": 2, "seeds": 1, "device": "cpu"}


def threads(report):
    report(1, 1)
    return torch.get_num_threads()


def fail(report):
    raise ValueError("no such image")


def die(report):
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(report):
    time.sleep(600)


def workers(single_threaded=False):
    return start_workers(1, single_threaded=single_threaded, progress=Progress(shown=False))


def test_a_job_runs_on_one_thread_and_its_error_reaches_the_caller():
    with pytest.raises(ValueError, match="no such image"), workers(single_threaded=True) as pool:
        assert pool.submit("threads", threads).result() == 1
        pool.submit("failing", fail).result()
    assert not multiprocessing.active_children()


def test_a_killed_process_is_reported_in_one_line():
    with pytest.raises(ValueError, match="a process of the quickstart was killed"), workers() as pool:
        pool.submit("dying", die).result()


def test_an_error_ends_the_jobs_that_still_run():
    began = time.monotonic()
    with pytest.raises(RuntimeError), workers() as pool:
        pool.submit("waiting", wait_for_ever)
        raise RuntimeError
    assert time.monotonic() - began < 300 and not multiprocessing.active_children()


def results(**values: list[float]) -> list[Result]:
    same = {"metric": "top1", "protocol": "", "backbone": "b", "data": "d", "machine": "m", "seconds": 1.0}
    return [
        Result(task="knn", value=value, recipe=row.replace("_", "-"), seed=seed, **same)
        for row, each in values.items()
        for seed, value in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("generative", "says"),
    [
        ([65.0, 66.0, 67.0], r"better than hand-made ones \(\+6.0 points, 7.3 standard errors"),
        ([53.0, 55.0, 57.0], r"worse than hand-made ones \(-5.0 points, 3.9 "),
        ([60.0, 61.0, 62.0], r"no different from hand-made ones \(\+1.0 points, 1.2 "),
    ],
)
def test_the_table_says_whether_generative_views_differ(generative, says):
    measured = results(untrained=[30.0, 30.0, 33.0], hand_made=[59.0, 60.0, 61.0], generative=generative)
    assert accuracy_table(measured).rows[:2] == [
        ("an untrained network", "31.0 ± 1.0"),
        ("hand-made views only", "60.0 ± 0.6"),
    ]
    said = sentences(measured, {"views": 84.0, "test_images": 96.0, "other_images": 10.0})
    assert "gain +29.0 points" in said[0]
    assert re.search(says, said[0])
    assert "84.0% of the views" in said[1]


def test_one_seed_has_no_error():
    measured = results(untrained=[30.0], hand_made=[59.0], generative=[60.0])
    assert [row[1] for row in accuracy_table(measured).rows] == ["30.0", "59.0", "60.0"]
    assert "for one seed" in sentences(measured, None)[0]


def test_the_oracle_learns_classes_and_judges_views(tmp_path):
    rng = np.random.default_rng(0)
    for place in range(32):
        name, level = ("dark", 40) if place % 2 else ("light", 200)
        pixels = np.clip(level + rng.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / name / f"{place}.png")
    oracle = train_classifier(tmp_path / "images", device="cpu", epochs=20, batch_size=16)
    assert oracle.classes == ("dark", "light")
    assert oracle.accuracy(tmp_path / "images") > 90
    (tmp_path / "views").mkdir()
    with pytest.raises(ValueError):
        oracle.predict_views(tmp_path / "images", tmp_path / "views")


def test_the_whole_loop_in_miniature_is_not_repeated(tmp_path):
    pairdata.write_scenes(tmp_path / "train", count=40, seed=0, habit=0.0, plain=True)
    pairdata.write_scenes(tmp_path / "test", count=20, seed=1, habit=0.0, plain=True)
    given = {"data": tmp_path / "train/images", "test": tmp_path / "test/images", "out": tmp_path / "out"}
    out = genviews.quickstart(**given, **SMALL, processes=1)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(row["recipe"], row["task"]) for row in rows] == [
        (name, task) for name in ("untrained", "hand-made", "generative") for task in ("knn", "linear")
    ]
    assert len(list((out / "views").rglob("*.png"))) == 40 and len(list((out / "interpolated").rglob("*.png"))) == 20
    assert 0 <= json.loads((out / "agreement.json").read_text())["views"] <= 100
    assert "an untrained network" in (out / "table.md").read_text() and (out / "pairs.png").stat().st_size > 10_000
    weights = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    generated = {path: path.stat().st_mtime_ns for path in (out / "views").rglob("*.png")}
    genviews.quickstart(**given, **SMALL, processes=1)
    assert {path: path.read_bytes() for path in out.rglob("*.safetensors")} == weights
    assert {path: path.stat().st_mtime_ns for path in (out / "views").rglob("*.png")} == generated


def test_what_another_encoder_made_is_set_aside(tmp_path):
    for name in (*FROM_ENCODER, "hand-made"):
        (tmp_path / name).mkdir()
    (tmp_path / "embeddings/embeddings.json").write_text('{"encoder_hash": "a"}')
    said: list[str] = []
    report = SimpleNamespace(message=said.append)
    set_aside(tmp_path, "a", report)
    assert not said and (tmp_path / "views").exists()
    set_aside(tmp_path, "b", report)
    assert len(said) == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "hand-made"]
    assert {path.name for path in (tmp_path / "earlier").iterdir()} == set(FROM_ENCODER)
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings/progress.json").write_text('{"encoder_hash": "b"}')
    set_aside(tmp_path, "c", report)
    assert (tmp_path / "earlier2/embeddings/progress.json").exists()


@pytest.mark.slow
def test_raised_epochs_make_all_that_depends_on_the_encoder_anew(tmp_path):
    pairdata.write_scenes(tmp_path / "train", count=40, seed=0, habit=0.0, plain=True)
    given = {"data": tmp_path / "train/images", "out": tmp_path / "out"}
    out = genviews.quickstart(**given, **SMALL, processes=1)
    genviews.quickstart(**given, **SMALL | {"epochs": 2}, processes=1)
    assert (out / "earlier/views/manifest.parquet").exists() and (out / "earlier/generative").exists()
    for variant in ("hand-made", "generative"):
        assert json.loads((out / variant / "seed-0/backbone/backbone.json").read_text())["epoch"] == 2
    assert len(list((out / "views").rglob("*.png"))) == 40
