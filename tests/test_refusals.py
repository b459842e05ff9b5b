"""Behavior of every command with an unwritable path, a missing device, or a second writer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genviews_core.lock import lock_file, lock_folder

WRITERS = {
    "pretrain": ("apps/pretrain", "small-simsiam", "--data", "IMAGES"),
    "quickstart": ("apps/pretrain", "quickstart", "--data", "IMAGES"),
    "train_generator": ("apps/train_generator", "IMAGES", "--encoder", "BACKBONE", "--preset", "32-small"),
    "generate": ("apps/generate", "IMAGES", "--model", "BACKBONE"),
    "pack": ("apps/pack", "IMAGES", "--size", "16", "--mode", "raw", "--workers", "0"),
    "inspect": ("apps/inspect", "IMAGES", "VIEWS", "--count", "1"),
}
WITH_DEVICE = ("pretrain", "quickstart", "train_generator", "generate")
LOCKED = ("pretrain", "quickstart", "train_generator", "pack")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, save_untrained) -> Path:
    """A folder of images, an empty folder, and a backbone."""
    root = tmp_path_factory.mktemp("refusals")
    for place in range(4):
        (root / "IMAGES").mkdir(exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(root / "IMAGES" / f"{place}.png")
    (root / "VIEWS").mkdir()
    save_untrained(root / "BACKBONE", 32)
    return root


@pytest.fixture
def ended(filled, programs):
    """ended(name, *options) runs a failing program and returns its only line on standard error."""

    def run(name: str, *options: object, **env: str) -> str:
        program, *given = WRITERS[name]
        arguments = [filled / part if (filled / part).exists() else part for part in given]
        printed = programs(program, *arguments, *options, expect=1, **env)
        assert "Traceback" not in printed
        return printed.splitlines()[-1]

    return run


@pytest.mark.parametrize("name", WRITERS)
def test_uncreatable_folder_is_reported_in_one_line(ended, name):
    assert ended(name, "--out", "/proc/x/y.html").startswith("error: cannot write /proc/x")


@pytest.mark.parametrize("name", ["pretrain", "pack", "inspect"])
def test_file_in_place_of_a_folder_is_reported_in_one_line(ended, name, tmp_path):
    (tmp_path / "file").touch()
    told = ended(name, "--out", tmp_path / "file" / "y.html")
    assert told.startswith("error: cannot write") and "a file exists where a folder is needed" in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", WITH_DEVICE)
def test_missing_device_is_reported_in_one_line(ended, name, tmp_path):
    told = ended(name, "--out", tmp_path / "out", "--device", "cuda:1", CUDA_VISIBLE_DEVICES="")
    assert told.startswith("error: expected a device of this machine, got cuda:1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOCKED)
def test_second_writer_is_rejected_with_the_process_id(ended, name, tmp_path):
    with lock_folder(tmp_path / "out"):
        told = ended(name, "--out", tmp_path / "out")
        assert f"{tmp_path / 'out'} is being written by process " in told
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_library_commands_report_unwritable_paths(filled, tmp_path, monkeypatch, capsys):
    import ssl_eval.cli
    import viewgen.cli

    (tmp_path / "file").touch()
    results = tmp_path / "results.jsonl"
    about = {"value": 1.0, "backbone": "b", "data": "d", "seed": 0, "machine": "m", "seconds": 1.0}
    ssl_eval.append_result(results, ssl_eval.Result(task="knn", metric="top1", protocol="p", **about))
    commands = [
        (viewgen.cli, "embed", filled / "IMAGES", "--encoder", filled / "BACKBONE", "--out", "OUT"),
        (ssl_eval.cli, "report", results, "--out", "OUT"),
    ]
    for cli, *arguments in commands:
        for out in ("/proc/x", tmp_path / "file" / "x"):
            monkeypatch.setattr("sys.argv", ["command", *(str(part).replace("OUT", str(out)) for part in arguments)])
            with pytest.raises(SystemExit) as caught:
                cli.main()
            told = str(caught.value.code) + capsys.readouterr().err
            assert "error: cannot write" in told, (cli, out)


def test_pairquality_files_are_locked(filled, tmp_path):
    import pairquality.cli

    with lock_file(tmp_path / "x.safetensors"), pytest.raises(ValueError, match="is being written by"):
        out = ("--encoder", str(filled / "BACKBONE"), "--out", str(tmp_path / "x.safetensors"))
        pairquality.cli.run(["fit", str(filled / "IMAGES"), *out])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("pretrain", "--epochs", "-1"),
        ("pretrain", "--lr", "nan"),
        ("pretrain", "--view-probability", "2"),
        ("pretrain", "--cache-gb", "-1"),
        ("pretrain", "--workers", "-1"),
        ("train_generator", "--steps", "0"),
        ("train_generator", "--batch-size", "0"),
        ("pack", "--shard-images", "0"),
    ],
)
def test_a_number_out_of_its_range_is_one_line_and_nothing_is_written(ended, name, option, value, tmp_path):
    told = ended(name, "--out", tmp_path / "out", option, value)
    assert option.removeprefix("--").replace("-", "_") in told.replace("-", "_") and value in told
    assert not (tmp_path / "out" / "resume.pt").exists() and not (tmp_path / "out" / "backbone").exists()


def test_a_range_of_values_that_does_not_rise_is_one_line(ended, tmp_path):
    told = ended("pretrain", "--out", tmp_path / "out", "--value-range", "5", "5")
    assert told == "error: expected --value-range LOW HIGH with LOW below HIGH, got 5 5; give 0 4095"
