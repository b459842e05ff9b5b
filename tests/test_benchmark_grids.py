"""The grids name what exists, and a stopped grid goes on; the evaluation itself is played by a script."""

import importlib
from types import ModuleType

import pytest

STAND_IN = """
import json, sys
from pathlib import Path
given = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[2:])
if sys.argv[1] == "broken":
    sys.exit("error: broken")
changes = {"epochs": given.get("epochs"), "batch": given.get("batch-size")}
label = given["protocol"] + "".join(f" {name}={value}" for name, value in changes.items() if value)
label += " cached" * ("cached" in given) + " k=20" * ("knn" in label) + " balanced" * ("semi" in label)
with Path(given["results"]).open("a") as file:
    for metric in ("top1", "top5"):
        line = {"task": "t", "metric": metric, "value": 50.0, "protocol": label, "backbone": "b", "data": "cifar/test",
                "seed": int(given["seed"]), "machine": "m", "seconds": 1.0, "recipe": given["name"]}
        file.write(json.dumps(line) + chr(10))
"""


@pytest.fixture(params=["linear", "semi_supervised"])
def benchmark_of(request, monkeypatch, tmp_path) -> ModuleType:
    """The program, its evaluation replaced."""
    module = importlib.import_module(f"benchmarks.{request.param}.__main__")
    (tmp_path / "evaluate.py").write_text(STAND_IN)
    monkeypatch.setattr(module, "EVALUATE", tmp_path / "evaluate.py")
    monkeypatch.setattr(module, "hash_of", lambda folder: "other" if folder == "other" else "b")
    return module


def test_every_cell_has_a_protocol(benchmark_of):
    for grid in benchmark_of.GRIDS.values():
        assert len({(cell.encoder, cell.protocol) for cell in grid}) == len(grid)
        for cell in grid:
            assert cell.variant.protocol.source
            assert all(figure is None or 30 < figure < 100 for figure in cell.published.values())


def test_a_grid_is_filled_once(benchmark_of, tmp_path, capsys):
    kind = getattr(benchmark_of, "Linear", None) or benchmark_of.SemiSupervised
    common = {"train": tmp_path / "cifar/train", "test": tmp_path / "cifar/test", "grid": "small"}
    results = {"results": tmp_path / "results.jsonl", "resume": tmp_path}
    table = benchmark_of.run(kind(encoders=("untrained=a",), **common, **results))
    rows = [cell.encoder for cell in benchmark_of.GRIDS["small"]]
    assert capsys.readouterr().err.count("--protocol=") == rows.count("untrained")
    assert len(table.rows) == len(set(rows)) and "| untrained |" in (tmp_path / "small.md").read_text()
    benchmark_of.run(kind(encoders=("untrained=a",), **common, **results))
    assert capsys.readouterr().err == ""
    benchmark_of.run(kind(encoders=("untrained=other",), **common, **results))  # other weights of that name
    assert capsys.readouterr().err.count("--protocol=") == rows.count("untrained")
    with pytest.raises(ValueError, match=r"program of generated views, .* failed"):
        benchmark_of.run(kind(encoders=("generated views=broken",), **common, **results))
    with pytest.raises(ValueError, match="got 'big'"):
        benchmark_of.run(kind(encoders=(), **(common | {"grid": "big"})))
