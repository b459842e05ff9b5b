"""The accuracy table of weights: what it runs."""

from pathlib import Path

import pytest

from benchmarks.ablations import quality


def test_every_scorer_meets_every_gamma_beside_equal_weights(tmp_path):
    options = quality.QualityAblation(data=tmp_path, test=tmp_path, scorers=("exact", "self"), gammas=(1.0, 20.0))
    named = {cell.name: cell.folder for cell in quality.cells(options)}
    assert list(named) == ["equal weights", "exact, gamma 1", "exact, gamma 20", "self, gamma 1", "self, gamma 20"]
    assert len(set(named.values())) == 5 and named["exact, gamma 20"] == "exact-gamma-20"


ECHO = "import sys; print('error: it was told ' + ' '.join(sys.argv[1:])); sys.exit(1)"


@pytest.mark.parametrize(
    ("scorer", "given"), [("exact", "--pca P --encoder E"), ("distilled", "--scorer S"), ("self", "")]
)
def test_a_run_is_told_what_its_scorer_needs_and_a_failure_says_which_it_was(monkeypatch, tmp_path, scorer, given):
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.setattr(quality.run_app, "PRETRAIN", tmp_path / "echo.py")
    monkeypatch.chdir(tmp_path)
    options = quality.QualityAblation(
        data=Path("D"), test=Path("T"), views=Path("V"), pca=Path("P"), encoder="E", scorer=Path("S"), epochs=3
    )
    run = f"small-dino --data D --out O --epochs 3 --seed 2 --device auto --pair-weighting {scorer}"
    expected = f"{scorer}, gamma 5, seed 2 failed: it was told {run} --gamma 5.0 --views V {given}"
    with pytest.raises(ValueError) as caught:
        quality.train(options, quality.Cell(scorer, 5.0), 2, Path("O"))
    assert str(caught.value) == expected.strip()
