import re
from pathlib import Path


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {})
    printed = capsys.readouterr().out
    assert "knn top1 default" in printed and "top1=" in printed and "learning_rate=" in printed
