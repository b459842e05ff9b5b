"""Every part of benchmarks/gpu at tiny size on a CPU, so that no time on a GPU is lost to errors."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import sslzoo
from tests.in_process import run_program

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")]
GPU = pytest.param("cuda", marks=ON_GPU)
PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two classes that differ in brightness."""
    root = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", 16), ("test", 4)):
        for label, level in (("dark", 60), ("light", 190)):
            (root / part / label).mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(-40, 40, (32, 32, 3), generator=generator)
                Image.fromarray((level + noise).byte().numpy()).save(root / part / label / f"{number:02}.png")
    return root


def run(*arguments: object) -> str:
    """Run the program in this process and return what it printed."""
    return run_program(PROGRAM, *arguments)


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_evidence_runs_all_parts_and_continues_elsewhere(data, tmp_path, device):
    classifier = tmp_path / "classifier.pt"
    head = {"linear.weight": torch.zeros(2, 64), "linear.bias": torch.ones(2)}
    torch.save({"state_dict": sslzoo.create_backbone("resnet20").state_dict() | head}, classifier)
    minutes = 0.2 if device == "cpu" else 1.5  # on a GPU, each variant is its own process
    words = ["evidence", "--data", data, "--tiny", "--device", device, "--minutes", minutes, "--variant-epochs", 1]
    words += ["--out", tmp_path / "out", "--classifier", classifier, "--sampling-steps", 4]
    run(*words, "--seeds", 1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    names = [line["name"] for line in lines]
    assert not [line for line in lines if "failed" in line["name"] or "given up" in line["name"]]
    variants = [line["about"]["variant"] for line in lines if line["name"].startswith("variant ")]
    assert sorted(variants) == ["generative", "hand-made", "retrieved"] and names[-1] == "evidence"
    agreement = next(line["figures"] for line in lines if line["name"] == "class agreement")
    assert agreement["the images"] == agreement["generative"] == 50  # a classifier that always predicts the same class
    assert lines[0]["machine"] and lines[0]["commit"] and torch.__version__.startswith(lines[0]["versions"]["torch"])
    assert Image.open(tmp_path / "out" / "sheet.png").height > 4 * 64

    run(*words, "--seeds", 1, "--variants", "hand-made", "generative")
    more = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()][len(lines) :]
    assert "encoder" not in [line["name"] for line in more]
    images = [line["figures"]["images"] for line in (*lines, *more) if line["name"] == "generator"]
    assert images == [32, 64]
    variants = [
        (line["about"]["variant"], line["about"]["seed"]) for line in more if line["name"].startswith("variant ")
    ]
    assert variants == [("generative", 0)]  # new views; the variant without views is finished
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["eldm-0.safetensors", "encoder-0.safetensors", "results.jsonl", "sheet.png", "state.json"]
    printed = run("table", "--results", tmp_path / "out" / "results.jsonl")
    assert "| hand-made | 1 | 1 |" in printed and "class agreement" in printed


def test_weights_are_saved_in_half_precision_and_small_files(tmp_path, monkeypatch):
    from benchmarks.gpu import portable_state

    monkeypatch.setattr(portable_state, "LARGEST", 5000)
    tensors = {f"{number}": torch.randn(1000) for number in range(7)} | {"count": torch.tensor(3)}
    files = portable_state.save_weights(tmp_path, "net", tensors)
    assert len(files) == 4 and all(file.stat().st_size < 5500 for file in files)
    kept = portable_state.load_weights(tmp_path, "net")
    assert kept.keys() == tensors.keys() and kept["count"] == 3
    assert all(torch.equal(kept[name], tensors[name].half().float()) for name in "0123456")
    assert len(portable_state.save_weights(tmp_path, "net", {"0": torch.zeros(2)})) == 1
    assert (
        list(portable_state.load_weights(tmp_path, "net")) == ["0"]
        and portable_state.load_weights(tmp_path, "other") == {}
    )


def test_pairs_have_image_and_view_in_random_order(data):
    from benchmarks.gpu.images import Split
    from benchmarks.gpu.pretraining import Pretraining, Recipe

    images = torch.arange(64, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32).contiguous()
    split = Split(images=images, labels=torch.zeros(64, dtype=torch.long), classes=("one",))
    recipe = Recipe(backbone={"name": "resnet10", "width": 8, "cifar_stem": True}, batch_size=16, half=False)
    training = Pretraining(split, recipe, epochs=1, seed=0, views=images + 100)
    (batch,) = training.loader.epoch(0)
    first, second = training._pair(batch)
    assert batch.index.sort().values.tolist() == list(range(64)) and torch.equal(
        batch.real[:, 0, 0, 0], batch.index.byte()
    )
    assert torch.equal((first.int() - second.int()).abs(), torch.full_like(first.int(), 100))
    assert 10 < (first > second)[:, 0, 0, 0].sum() < 54


def test_diffusion_model_learns_its_condition_and_resumes_from_half_precision():
    from dataclasses import replace

    from benchmarks.gpu.device_eldm import DeviceELDM, tiny_config
    from benchmarks.gpu.images import Split

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(32) % 2
    noise = torch.randint(-20, 20, (32, 3, 32, 32), generator=generator)
    images = (60 + 130 * labels[:, None, None, None] + noise).to(torch.uint8)
    embeddings = nn.functional.one_hot(labels, 8) + 0.05 * torch.randn(32, 8, generator=generator)
    split = Split(images=images, labels=labels, classes=("dark", "light"))
    config = replace(tiny_config(), learning_rate=3e-3, warmup_steps=10, ema_decay=0.9)
    eldm = DeviceELDM(config, split, embeddings, capture=False)
    assert eldm.learn(60.0, most=60)["images"] == 480
    generated = eldm.generate(embeddings, steps=4, guidance=1.0, seed=0).float()
    levels = generated.mean((1, 2, 3))
    assert levels[labels == 0].mean() < 90 and levels[labels == 1].mean() > 150

    kept = {name: value.half() if value.is_floating_point() else value for name, value in eldm.state().items()}
    other = DeviceELDM(config, split, embeddings, capture=False, seed=1)
    other.load({name: value.float() if value.is_floating_point() else value for name, value in kept.items()})
    again = other.generate(embeddings, steps=4, guidance=1.0, seed=0).float()
    assert other.images_seen == 480 and (again - generated).abs().mean() < 0.5


def test_nearest_images_exclude_the_image_itself():
    from benchmarks.gpu.view_sources import nearest

    vectors = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    similarity = (vectors @ vectors.T).fill_diagonal_(-2)
    assert torch.equal(nearest(vectors, near=1, chunk=7), similarity.argmax(1))
    drawn = nearest(vectors, near=3, chunk=7)
    assert all(drawn[row] in similarity[row].topk(3).indices for row in range(50))


def test_speed_run_records_each_mark(data, tmp_path):
    results = tmp_path / "results.jsonl"
    words = ["--data", data, "--tiny", "--device", "cpu", "--epochs", 2, "--every", 1, "--results", results]
    run("speedrun", *words, "--marks", 10, 101)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["to 10% kNN", "end"]
    assert 0 < lines[0]["figures"]["seconds"] < lines[1]["figures"]["seconds"] < lines[1]["figures"]["whole"]
    assert "| to 10% kNN |" in run("table", "--results", results)


def test_incomplete_result_lines_are_skipped(tmp_path):
    from benchmarks.gpu.records import Recorder, read_lines

    record = Recorder(tmp_path / "r.jsonl", "checks")
    record("first", value=1 / 3)
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write('{"part": "che\n')
    record("second", value=2)
    assert [line["name"] for line in read_lines(tmp_path / "r.jsonl")] == ["first", "second"]
    assert next(read_lines(tmp_path / "r.jsonl"))["figures"] == {"value": 0.333333}
    printed = run_program(PROGRAM, "table", "--results", tmp_path / "none.jsonl", expect=1)
    assert printed.startswith("error: expected results in ") and "none.jsonl, got none" in printed


def test_checks_keep_output_of_failed_and_hung_programs(tmp_path, monkeypatch):
    from benchmarks.gpu import checks
    from benchmarks.gpu.check_list import Check
    from benchmarks.gpu.records import read_lines

    row = '{"method": "SimSiam", "precision": "bf16", "ours, pairs/s": "9.0"}'
    programs = {
        "step: one": (f"print('noise'); print('{row}')", "throughput"),
        "hangs": (f"import time; print('{row}', flush=True); time.sleep(60)", "throughput"),
        "tests": ("print('[gw0] [ 9%] PASSED tests/a.py::test_b[cuda] '); print('a.py::test_c FAILED [9%]')", "tests"),
        "fails": ("raise RuntimeError('out of memory')", "throughput"),
    }
    listed = [
        Check(name=name, words=("-c", code), part=part, limit=2.0 if name == "hangs" else 20.0)
        for name, (code, part) in programs.items()
    ]
    monkeypatch.setattr(checks, "all_checks", lambda *_, **__: [*listed, Check(name="late", words=(), least=1e9)])
    results = tmp_path / "results.jsonl"
    checks.main(checks.Checks(minutes=1.0, results=results, device="cpu"))
    lines = list(read_lines(results))
    assert [line["figures"]["ours, pairs/s"] for line in lines if line["part"] == "throughput"] == ["9.0", "9.0"]
    outcomes = {line["about"]["test"]: line["figures"]["outcome"] for line in lines if line["name"] == "test"}
    assert outcomes == {"tests/a.py::test_b[cuda]": "PASSED", "a.py::test_c": "FAILED"}
    ends = {line["about"]["check"]: line for line in lines if line["name"] in ("done", "not done", "left out")}
    assert ends["step: one"]["name"] == ends["tests"]["name"] == "done" and ends["late"]["name"] == "left out"
    assert ends["hangs"]["figures"]["reason"] == "out of time" and ends["hangs"]["figures"]["seconds"] < 10
    assert "out of memory" in ends["fails"]["figures"]["output"] and "noise" in results.with_suffix(".log").read_text()
    with pytest.raises(ValueError, match="there are step: one, hangs"):
        checks.main(checks.Checks(results=results, only=("nothing",)))


def test_checks_use_existing_options(monkeypatch):
    """Otherwise, a typo would only be noticed on a GPU."""
    pytest.importorskip("lightly", reason="needs the baselines: uv sync --group baselines")
    pytest.importorskip("kornia", reason="needs the baselines: uv sync --group baselines")
    import tyro

    from benchmarks.gpu.check_list import all_checks
    from benchmarks.throughput.augmentation import AugmentationBenchmark
    from benchmarks.throughput.step import OURS, StepBenchmark
    from benchmarks.throughput.views import ViewsBenchmark

    kinds = {"step": StepBenchmark, "augmentation": AugmentationBenchmark, "views": ViewsBenchmark}
    for check in [*all_checks("cuda", tiny=False), *all_checks("cpu", tiny=True)]:
        program, *words = check.words
        if check.part == "throughput":
            assert program == "benchmarks/throughput" and words.pop() == "--lines"
            options = tyro.cli(kinds[words[0]], args=words[1:])
            assert set(getattr(options, "methods", ())) <= set(OURS)
        else:
            assert all((PROGRAM.parents[1] / word).is_file() for word in words if word.endswith(".py"))


def test_wheels_are_the_missing_packages_in_locked_versions(monkeypatch, tmp_path, capsys):
    from benchmarks.gpu import wheels

    needed = dict(name.split("==") for name in wheels.missing(wheels.WANTED["checks"]))
    there = set(wheels.PRESENT.read_text().split())
    assert {"diffusers", "tyro", "typeguard", "kornia", "kornia-rs", "lightly", "ftfy"} <= needed.keys()
    assert not there & needed.keys() and "torch" in there and not any(name.startswith("nvidia") for name in needed)
    locked = (PROGRAM.parents[1] / "uv.lock").read_text()
    assert all(f'name = "{name}"\nversion = "{version}"' in locked for name, version in needed.items())

    monkeypatch.setattr(wheels, "download", lambda needed, out, python: (out / "a.whl").write_bytes(b"wheel"))
    wheels.main(wheels.Wheels(out=tmp_path, part="evidence"))
    assert "are left for weights" in capsys.readouterr().out
    monkeypatch.setattr(wheels, "LARGEST", 1000)
    with pytest.raises(ValueError, match="take --part evidence"):
        wheels.main(wheels.Wheels(out=tmp_path))
