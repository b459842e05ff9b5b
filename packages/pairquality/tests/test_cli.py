import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from genviews_core.backbones import backbone_hash, create_backbone
from pairquality import ForegroundPCA
from pairquality.cli import FAILED, main, run
from pairquality.scorers import distillation_trainer


@pytest.fixture
def work(tmp_path):
    """A folder of images, and a backbone's folder."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for place in range(12):
        pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
        pixels[10:30, 10:30] += np.uint8(150)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{place}.png")
    export(tmp_path / "backbone", 0)
    return tmp_path


def export(folder, seed: int, **options) -> None:
    folder.mkdir()
    torch.manual_seed(seed)
    architecture = {"name": "resnet10", "width": 4, "cifar_stem": True, **options}
    network = create_backbone(**architecture)
    save_file(dict(network.state_dict()), folder / "backbone.safetensors")
    recipe = {"image_size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    about = {"format": 1, "architecture": architecture, "hash": backbone_hash(network), "recipe": recipe}
    (folder / "backbone.json").write_text(json.dumps(about))


def command(work, *rest: str) -> int:
    name, *options = rest
    return run([name, str(work / "images"), "--workers", "1", *options])


def fit(work, *options: str) -> str:
    pca = str(work / "pca" / "foreground.safetensors")
    assert command(work, "fit", "--encoder", str(work / "backbone"), "--out", pca, *options) == 0
    return pca


def test_fit_ratios_and_visualize(work, capsys):
    pca = fit(work, "--images", "9", "--share-foreground", "0.3", "--mean", "0.4", "0.4", "0.4")
    found = ForegroundPCA.load(pca)
    assert found.fitted_on is not None and found.fitted_on.images == 9 and found.share_foreground == 0.3
    assert found.fitted_on.mean == (0.4, 0.4, 0.4)
    assert command(work, "ratios", "--pca", pca, "--out", str(work / "r.parquet")) == 0
    assert pq.read_table(work / "r.parquet").num_rows == 12
    assert command(work, "visualize", "--pca", pca, "--out", str(work / "maps.png"), "--count", "4") == 0
    assert (work / "maps.png").is_file()
    output = capsys.readouterr()
    assert "9 images, threshold" in output.out and "12/12" in output.err


def test_an_unreadable_image_shows_in_the_exit_code(work, capsys):
    pca = fit(work)
    (work / "images" / "z.jpg").touch()
    for _ in range(2):
        assert command(work, "ratios", "--pca", pca, "--out", str(work / "r.parquet")) == FAILED
        assert "1 images cannot be read; see" in capsys.readouterr().err
    assert json.loads((work / "r.failures.jsonl").read_text())["key"] == "z.jpg"


def test_foreign_tampered_and_narrow_pcas_are_refused_in_one_line(work, monkeypatch, capsys):
    pca = fit(work)
    export(work / "other", 1)

    def message_of(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["pairquality", "ratios", str(work / "images"), *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        text = str(caught.value)
        assert text.startswith("error: ") and "\n" not in text and not (work / "r.parquet").exists()
        return text

    out = ("--out", str(work / "r.parquet"))
    assert "fit a PCA for this encoder" in message_of("--pca", pca, "--encoder", str(work / "other"), *out)
    assert "expected a foreground PCA at" in message_of("--pca", str(work / "none"), *out)
    tensors = load_file(pca)
    data = bytearray(Path(pca).read_bytes())
    data[-3] ^= 1
    Path(pca).write_bytes(data)
    assert "was changed after it was saved" in message_of("--pca", pca, *out)
    save_file(tensors, pca)
    assert "does not hold a saved foreground PCA" in message_of("--pca", pca, *out)


TINY = ("--count", "27", "--held-out", "3", "--pairs", "2", "--steps", "1", "--widths", "4", "--depths", "1")
WRITES = {"fit": "x.safetensors", "ratios": "x.parquet", "visualize": "x.png", "distill": "x.safetensors"}


def ended(work, monkeypatch, name: str, *options: str) -> str:
    """Return the last line of a command that fails."""
    given = ("--encoder", str(work / "backbone")) if name == "fit" else ("--pca", str(work / "pca.safetensors"))
    monkeypatch.setattr("sys.argv", ["pairquality", name, str(work / "images"), "--workers", "1", *given, *options])
    with pytest.raises(SystemExit) as caught:
        main()
    text = str(caught.value)
    assert text.startswith("error: ") and "\n" not in text
    return text


@pytest.fixture
def ready(work):
    """Return the folder with a PCA and enough images for every command."""
    for place in range(12, 30):
        shutil.copy(work / "images" / "0.png", work / "images" / f"{place}.png")
    assert command(work, "fit", "--encoder", str(work / "backbone"), "--out", str(work / "pca.safetensors")) == 0
    return work


@pytest.mark.parametrize("name", WRITES)
def test_an_unwritable_output_and_a_missing_device_are_one_line_errors(ready, monkeypatch, name):
    before = sorted(ready.rglob("*"))
    (ready / "file").touch()
    training = TINY if name == "distill" else ()
    assert "cannot write /proc/x/" in ended(ready, monkeypatch, name, "--out", f"/proc/x/{WRITES[name]}", *training)
    message = ended(ready, monkeypatch, name, "--out", str(ready / "file" / WRITES[name]), *training)
    assert "a file exists where a folder is needed" in message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        message = ended(ready, monkeypatch, name, "--out", str(ready / WRITES[name]), "--device", device, *training)
        assert f"got {device}, but torch sees no CUDA GPU; give --device cpu" in message
    assert sorted(ready.rglob("*")) == sorted([*before, ready / "file"])


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_is_a_one_line_error_and_leaves_no_partial_file(ready, monkeypatch, name):
    before = sorted(ready.rglob("*"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(distillation_trainer, "SUBSPACE_OVER", 4)
    message = ended(ready, monkeypatch, name, "--out", str(ready / WRITES[name]), *(TINY if name == "distill" else ()))
    assert "the disk is full; free some space and run again" in message
    assert sorted(ready.rglob("*")) == before


def test_small_encoders_get_larger_images_so_that_the_map_has_a_center(work, capsys):
    """The network of the small recipes has a map of 2 x 2 tokens at 32 px."""
    export(work / "small", 0, stem_stride=2)
    pca = str(work / "foreground.safetensors")
    assert command(work, "fit", "--encoder", str(work / "small"), "--out", pca) == 0
    assert "images of 64 px instead of 32, whose map of 2 x 2 tokens has no center" in capsys.readouterr().err
    assert ForegroundPCA.load(pca).fitted_on.size == 64
    assert command(work, "ratios", "--pca", pca, "--out", str(work / "r.parquet")) == 0
    with pytest.raises(ValueError, match="give larger images"):
        command(work, "fit", "--encoder", str(work / "small"), "--out", pca, "--size", "32")


@pytest.mark.parametrize("words", [[], ["fit"], ["ratios"], ["visualize"], ["distill"]])
def test_help_does_not_import_torch(words):
    program = (
        "import sys; from pairquality.cli import main\n"
        f"sys.argv = ['pairquality', *{words}, '--help']\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0 and "usage: pairquality" in ended.stdout, ended.stderr
