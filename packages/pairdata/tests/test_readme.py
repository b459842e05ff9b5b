"""The README's examples, on fewer images."""

import re
import shutil
from pathlib import Path

SMALLER = {
    "count=2000": "count=8",
    "batch_size=256": "batch_size=4",
    "size=288, workers=8": 'size=64, mode="raw", workers=1',
    "workers=8": "workers=1",
    'views="views", ': "",
}


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    names: dict = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        for large, small in SMALLER.items():
            block = block.replace(large, small)
        exec(block, names)
        if number == 0:
            assert "torch.Size([4, 3, 32, 32])" in capsys.readouterr().out
            shutil.copytree("scenes/images", "images")
    assert sum(len(batch.index) for batch in names["loader"].epoch(0)) == 8
