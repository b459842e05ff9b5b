import re
from pathlib import Path


def test_the_example_runs(capsys):
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(block, names)
    assert abs(names["weights"].mean() - 1) < 1e-5
    assert "center above border:" in capsys.readouterr().out
