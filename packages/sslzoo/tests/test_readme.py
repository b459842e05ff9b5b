import re
from pathlib import Path

import torch


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    names: dict = {}
    first, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(first, names)
    assert names["encoder"].num_features == 128
    try:
        exec(second, names)
        assert torch.is_tensor(names["wrapped"](names["views"], torch.ones(32))["loss"])
    finally:
        torch.distributed.destroy_process_group()
