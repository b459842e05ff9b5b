"""The papers' tables as commands: what each row is, what is run of it, and that nothing is run twice."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.ablations import gencl, gensis, genview, run_app, run_grid
from genviews.recipes import RECIPES
from genviews.recipes.augmentations import DISABLED, drop_augmentations
from ssl_eval import Result, append_result

TABLES = {
    genview: ("ViewProbability", "Components", "NoiseStrategy"),
    gencl: ("SamplingRate", "PairwiseAugmentations"),
    gensis: ("SelfAugmentations",),
}


@pytest.fixture
def tables():
    return [getattr(module, name) for module, names in TABLES.items() for name in names]


def test_every_row_is_of_a_recipe_that_takes_its_options(tables):
    for table in tables:
        for grid in table.GRIDS.values():
            recipe = RECIPES[grid.recipe]()
            for row in grid.rows:
                options = {name.replace("-", "_"): value for name, value in row.options.items()}
                changed = replace(
                    recipe, **{name: value for name, value in options.items() if name != "drop_augmentations"}
                )
                drop_augmentations(changed.augmentation, options.get("drop_augmentations", ()))
                assert set(row.files) <= {"views", "interpolated", "pca"}
                assert all(cell.variant.protocol.source for cell in grid.cells(row))
            slugs = {run_grid._slug(row.name) for row in grid.rows}
            assert len(slugs) == len(grid.rows) == len({row.name for row in grid.rows})


def test_figures_are_those_of_the_papers():
    """Against what the papers say of their tables: gains over the first row, and which row is best."""
    components = [row.published[0] for row in genview.COMPONENTS]
    assert [round(each - components[0], 2) for each in components[1:]] == [1.45, 5.98, 8.44, 9.36, 9.88]
    strengths = genview.STRENGTHS
    assert (strengths["constant-200"][0], strengths["adaptive"][0]) == (components[2], components[3])
    noise, mask = (gencl.SamplingRate.GRIDS[f"{kind}-based"].rows for kind in ("noise", "mask"))
    assert noise[0] == mask[0] and max(noise, key=lambda row: row.published[0]).name == "noise-based 25%"
    assert [round(row.published[0] - mask[0].published[0], 1) for row in mask[1:]] == [2.1, 2.7, 2.7, 1.7]
    paired = {row.name: row.published for row in gencl.PairwiseAugmentations.GRIDS["noise-based"].rows}
    gains = {name: round(told[0] - paired["generative"][0], 1) for name, told in paired.items()}
    assert list(gains.values()) == [0.0, 8.4, 3.0, 1.4, 1.3, -0.2, -1.7]
    for table in (noise, mask, tuple(gencl.PairwiseAugmentations.GRIDS["noise-based"].rows)):
        for row in table:
            top1, top5, one, ten, one_of_five, ten_of_five = row.published
            assert one < ten < top1 < top5 and one < one_of_five < ten_of_five < top5


def result(name: str, protocol: str, metric: str, value: float, seed: int = 0) -> Result:
    about = {"task": "t", "backbone": f"{name}-{seed}", "data": "cifar/test", "machine": "m", "seconds": 1.0}
    return Result(**about, recipe=name, protocol=protocol, metric=metric, value=value, seed=seed)


def test_ours_stand_beside_the_published_figures():
    grid = genview.ViewProbability.GRIDS["imagenet100"]
    found = [result("0.5", "genview-linear epochs=50", "top1", value, seed) for seed, value in enumerate((68.0, 70.0))]
    table = grid.table("alpha", [*found, result("0.5", "another", "top1", 1.0)], "cifar/test")
    assert table.header == ("alpha", "top-1, published", "top-1, ours", "top-5, published", "top-5, ours")
    assert table.rows[3] == ("0.5", "69.04", "69.00 ± 1.41 (2)", "89.29", "")
    assert [row[3] for row in table.rows][:2] == ["84.57", "87.10"]
    small = genview.ViewProbability.GRIDS["small"].table("alpha", found, "cifar/test")
    assert small.header == ("alpha", "kNN", "linear top-1", "linear top-5") and set(small.rows[3][1:]) == {""}


PRETRAIN = """
import sys
from pathlib import Path
told = sys.argv[1:]
out = Path(told[told.index("--out") + 1])
with Path(LOG).open("a") as file:
    file.write(" ".join(told) + chr(10))
if "broken" in str(told):
    sys.exit("error: the views are broken")
"""
EVALUATE = """
import json, sys
from pathlib import Path
given = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[2:])
if Path(LOG).with_name("refuse").exists():
    sys.exit("refused")
label = given["protocol"] + " cached" * ("cached" in given) + " k=20" * ("knn" in given["protocol"])
with Path(given["results"]).open("a") as file:
    for metric in ("top1", "top5"):
        line = {"task": "t", "metric": metric, "value": 50.0, "protocol": label, "backbone": sys.argv[1],
                "data": "cifar/test", "seed": int(given["seed"]), "machine": "m", "seconds": 1.0,
                "recipe": given["name"]}
        file.write(json.dumps(line) + chr(10))
"""


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What apps/pretrain is told, line by line; it and apps/evaluate are played by scripts."""
    log = tmp_path / "told.txt"
    for name, script in (("PRETRAIN", PRETRAIN), ("EVALUATE", EVALUATE)):
        path = tmp_path / f"{name.lower()}.py"
        path.write_text(script.replace("LOG", repr(str(log))))
        monkeypatch.setattr(run_app, name, path)
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_a_table_is_filled_once_and_goes_on_where_it_stopped(told, tmp_path):
    common = {"train": tmp_path / "cifar/train", "test": tmp_path / "cifar/test", "grid": "small", "out": tmp_path}
    views, adaptive = tmp_path / "views", tmp_path / "adaptive"
    options = genview.Components(**common, views=views, device="cpu", rows=("baseline", "framework"))
    views.mkdir()
    (tmp_path / "refuse").touch()
    with pytest.raises(ValueError, match=r"^baseline, dino-knn k=20 failed: refused \(see .*dino-knn.txt\)$"):
        list(run_grid.fill_table(options))
    (tmp_path / "refuse").unlink()
    assert list(run_grid.fill_table(options)) == ["baseline", "framework"]
    folder = tmp_path / "components" / "small-moco-v3-10-epochs"
    run = (
        f"small-moco-v3 --data {options.train} --out {folder}/{{}}/seed-0 --seed 0 --device cpu --workers 0 --epochs 10"
    )
    assert told() == [run.format("baseline")] * 2 + [run.format("framework") + f" --views {views}"]
    assert list(run_grid.fill_table(options)) == ["baseline", "framework"] and len(told()) == 3
    assert list(run_grid.fill_table(replace(options, seeds=2))) == ["baseline", "framework"] * 2 and len(told()) == 5
    table = run_grid.paper_table(options)
    assert [row[1] for row in table.rows] == ["50.00 ± 0.00 (2)", "", "50.00 ± 0.00 (2)", "", "", ""]
    assert (folder / "small.md").read_text().startswith("| parts | kNN | linear top-1 | linear top-5 |")
    with pytest.raises(ValueError, match=r"^expected --adaptive for 'framework, adaptive', got none; give it"):
        list(run_grid.fill_table(replace(options, rows=())))
    assert len(told()) == 5
    adaptive.mkdir()
    list(run_grid.fill_table(replace(options, rows=("framework, adaptive, quality loss",), adaptive=adaptive)))
    assert told()[-1].endswith(f"--epochs 10 --pair-weighting self --views {adaptive}")


def test_mistakes_end_in_one_line(told, tmp_path):
    common = {"train": tmp_path / "cifar/train", "test": tmp_path / "cifar/test", "out": tmp_path}
    for name in ("random", "broken"):
        (tmp_path / name).mkdir()
    views = tuple(f"{name}={tmp_path / name}" for name in ("random", "broken"))
    strategy = genview.NoiseStrategy(**common, views=views, grid="small", epochs=3)
    with pytest.raises(ValueError, match=r"^broken, seed 0 failed: the views are broken$"):
        list(run_grid.fill_table(strategy))
    assert [Path(line.split()[-1]).name for line in told()] == ["random", "broken"] and "--epochs 3" in told()[0]
    with pytest.raises(ValueError, match=r"^expected --views ROW=FOLDER, got R; give"):
        list(run_grid.fill_table(replace(strategy, views=("R",))))
    with pytest.raises(
        ValueError,
        match=r"^expected a file or folder for --views R=FOLDER, got nowhere, which does not",
    ):
        list(run_grid.fill_table(replace(strategy, views=(*views, "R=nowhere"), epochs=4)))
    with pytest.raises(ValueError, match=r"^expected --views constant-0=FOLDER for 'constant-0', got none; give it"):
        list(run_grid.fill_table(replace(strategy, grid="imagenet100")))
    assert len(told()) == 2
    with pytest.raises(ValueError, match=r"^expected rows among 'constant-0', .* got 'nearest'$"):
        run_grid.selected_rows(replace(strategy, grid="imagenet100", rows=("nearest",)))
    with pytest.raises(ValueError, match=r"^expected a grid imagenet100, small, got 'big'$"):
        run_grid.selected_rows(replace(strategy, grid="big"))
    rate = gencl.SamplingRate(**common, views=Path("V"))
    with pytest.raises(ValueError, match=r"expected the folder of SimCLR's lists for .*; give it with --lists"):
        list(run_grid.fill_table(rate))
    assert len(told()) == 2


SAVES = """
import signal, sys, time
from pathlib import Path
def save(*_):
    time.sleep(0.5)
    Path(sys.argv[1]).with_name("saved").touch()
    sys.exit(1)
signal.signal(signal.SIGINT, save)
Path(sys.argv[1]).touch()
time.sleep(60)
"""
CALLS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from benchmarks.ablations import run_app
run_app.run({!r}, [{!r}], "", log=run_app.Path({!r}))
"""


def test_an_interrupt_waits_until_the_training_has_saved(tmp_path):
    (tmp_path / "saves.py").write_text(SAVES)
    places = (tmp_path / "saves.py", tmp_path / "began", tmp_path / "log.txt")
    call = [sys.executable, "-c", CALLS.format(*map(str, places))]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate()[1]
        assert (tmp_path / "saved").exists()


def test_ten_percent_is_read_from_its_list(tmp_path):
    rate = gencl.SamplingRate(train=tmp_path, test=tmp_path, views=tmp_path, lists=Path("L"))
    cells = rate.chosen().cells(gencl.BASELINE)
    assert [rate.labels(cell) for cell in cells] == [
        [],
        ["--label-list=L/1percent.txt"],
        ["--label-list=L/10percent.txt"],
    ]


def test_what_is_left_out_of_an_augmentation_does_nothing():
    """An image that is neither square nor of one colour: without all of it, the central square is what is left."""
    views = RECIPES["imagenet-swav"]().augmentation
    everything = tuple(DISABLED)
    bare = drop_augmentations(replace(views, first=replace(views.first, solarize_p=1.0)), everything)
    side = bare.first.size
    pixels = torch.randint(256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[side, side]] * 3 + [[side, 2 * side]])
    view = bare.first(pixels, sizes, torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(each)[:, None, None] for each in (bare.first.mean, bare.first.std))
    torch.testing.assert_close(view[:3], (pixels[:3] / 255 - mean) / std)
    draws = bare.first.draw(sizes, torch.Generator().manual_seed(2))
    assert draws.boxes[3].tolist() == [0.0, 0.25, 1.0, 0.5]
    assert bare.local.crop_scale == (1.0, 1.0) and bare.local.size == 96
    kept = drop_augmentations(views, tuple(each for each in everything if each != "crop"))
    assert kept.first == replace(bare.first, crop_scale=views.first.crop_scale, crop_ratio=views.first.crop_ratio)
    assert drop_augmentations(views, ()) == views


def test_results_of_other_data_are_not_shown(told, tmp_path):
    options = genview.ViewProbability(
        train=tmp_path / "x", test=tmp_path / "other/test", views=Path("V"), grid="small", out=tmp_path
    )
    append_result(options.folder / "results.jsonl", result("0.5", "dino-knn k=20", "top1", 40.0))
    assert not any(any(row[1:]) for row in run_grid.paper_table(options).rows)
    assert run_grid.paper_table(replace(options, test=tmp_path / "cifar/test")).rows[3][1] == "40.00"
