"""The README's examples: run briefly on few images, or checked against signatures if they need weights or a GPU."""

import dataclasses
import re
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

import viewgen
from viewgen import eldm

BLOCKS = re.findall(r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), re.DOTALL)


def test_examples_that_need_weights_or_a_gpu_match_the_signatures(monkeypatch):
    for module, name in (
        *((viewgen, name) for name in ("generate_views", "merge_journals", "verify_views")),
        *((eldm, name) for name in ("train_autoencoder", "train_eldm")),
    ):
        monkeypatch.setattr(module, name, mock.create_autospec(getattr(module, name)))
    exec(BLOCKS[0], {})
    exec(BLOCKS[2], {"eldm": eldm, "embeddings": mock.Mock(keys=["a.png"])})
    assert viewgen.generate_views.called and eldm.train_autoencoder.called


def test_a_generator_is_trained_and_generates_views(tmp_path, monkeypatch, capsys, tiny_config):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    rng = np.random.default_rng(0)
    for place in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(f"images/{place}.png")
    monkeypatch.setattr(eldm, "preset", lambda name: dataclasses.replace(tiny_config, steps=2, batch_size=2))
    exec(BLOCKS[1], {})
    assert "manifest.parquet" in capsys.readouterr().out
    assert len(list(Path("run/views").glob("*.png"))) == 8
