"""The accuracy table of weights: what it runs, what it reads, and that it goes on where it stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ABLATIONS = ROOT / "benchmarks" / "ablations"


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(ABLATIONS))
    import quality

    return quality


def test_every_scorer_meets_every_gamma_beside_equal_weights(quality, tmp_path):
    options = quality.QualityAblation(data=tmp_path, test=tmp_path, scorers=("exact", "self"), gammas=(1.0, 20.0))
    named = {cell.name: cell.folder for cell in quality.cells(options)}
    assert list(named) == ["equal weights", "exact, gamma 1", "exact, gamma 20", "self, gamma 1", "self, gamma 20"]
    assert len(set(named.values())) == 5 and named["exact, gamma 20"] == "exact-gamma-20"


ECHO = "import sys; print('error: it was told ' + ' '.join(sys.argv[1:])); sys.exit(1)"


@pytest.mark.parametrize(
    ("scorer", "given"), [("exact", "--pca P --encoder E"), ("distilled", "--scorer S"), ("self", "")]
)
def test_a_run_is_told_what_its_scorer_needs_and_a_failure_says_which_it_was(
    quality, monkeypatch, tmp_path, scorer, given
):
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.setattr(quality, "PRETRAIN", tmp_path / "echo.py")
    options = quality.QualityAblation(
        data=Path("D"), test=Path("T"), views=Path("V"), pca=Path("P"), encoder="E", scorer=Path("S"), epochs=3
    )
    run = "small-dino --data D --out O --epochs 3 --seed 2 --device auto"
    expected = f"{scorer}, gamma 5, seed 2: it was told {run} --quality {scorer} --gamma 5.0 --views V {given}"
    with pytest.raises(ValueError) as caught:
        quality.train(options, quality.Cell(scorer, 5.0), 2, Path("O"))
    assert str(caught.value) == expected.strip()


@pytest.mark.slow
def test_the_table_is_made_of_the_results_and_nothing_is_measured_twice(quality, tmp_path):
    from pairdata import write_scenes

    write_scenes(tmp_path / "scenes", count=160, seed=0)
    images, out = tmp_path / "scenes" / "images", tmp_path / "out"
    command = [sys.executable, ABLATIONS, "quality", "--data", images, "--test", images, "--out", out, "--epochs", "2"]
    command += ["--seeds", "1", "--device", "cpu", "--scorers", "self", "--gammas", "20"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table]
    assert [row[0] for row in rows] == ["equal weights", "self, gamma 20"]
    assert rows[0][-2:] == ["", ""] and 0 < float(rows[1][-2]) < 100
    before = (out / "results.jsonl").read_bytes()
    results = [json.loads(line) for line in before.splitlines()]
    assert [result["task"] for result in results] == ["knn", "linear", "knn", "linear", "pairs", "pairs"]
    logged = [json.loads(line) for line in (out / "self-gamma-20" / "seed-0" / "log.jsonl").read_text().splitlines()]
    assert results[4]["value"] == pytest.approx(100 * sum(row["effective_share"] for row in logged) / len(logged))
    options = quality.QualityAblation(data=images, test=images, out=out, device="cpu")
    for cell in (quality.Cell(), quality.Cell("self", 20.0)):
        quality.measure(options, cell, 0, out / cell.folder / "seed-0")
    assert (out / "results.jsonl").read_bytes() == before
