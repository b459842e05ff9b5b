import re
from pathlib import Path

import pytest
import torch

from genviews_core.distributed import destroy_process_group

BLOCKS = re.findall(
    r"```python\n(.*?)```", Path(__file__).parents[1].joinpath("README.md").read_text(), flags=re.DOTALL
)


def run(blocks: list[str]) -> dict:
    names: dict = {}
    for block in blocks:
        exec(block, names)
    return names


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_examples_run(folder):
    names = run([block for block in BLOCKS if "lightly" not in block and "process_group" not in block])
    assert names["encoder"].num_features == 128
    assert (folder / "runs" / "simsiam" / "log.jsonl").read_text().count("\n") == 2
    assert names["state"].step == 10 and names["metrics"]["loss"].isfinite()
    try:
        exec(BLOCKS[-1], names)
        assert torch.is_tensor(names["wrapped"](names["views"], torch.ones(32))["loss"])
    finally:
        destroy_process_group()


def test_example_with_lightly_runs(folder):
    pytest.importorskip("lightly", reason="lightly is in the dependency group rivals")
    run(BLOCKS[:2])
    assert (folder / "runs" / "dino" / "resume.pt").exists()
