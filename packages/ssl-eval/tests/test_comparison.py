from dataclasses import replace

import pytest

from ssl_eval import GridCell, ProtocolOverride, Result, compare, encoder_folders, missing_cells

CELLS = [
    GridCell(encoder="MoCo v2", variant=ProtocolOverride(name="semi-1"), published={"top1": 42.1, "top5": 70.9}),
    GridCell(encoder="MoCo v2", variant=ProtocolOverride(name="semi-10"), published={"top1": 60.9, "top5": None}),
    GridCell(encoder="ours", variant=ProtocolOverride(name="semi-1"), published={"top1": None, "top5": None}),
]


def result(recipe: str, protocol: str, metric: str, value: float, seed: int = 0, data: str = "imagenet") -> Result:
    return Result(
        task="semi-supervised", metric=metric, value=value, protocol=protocol, backbone="", data=data, seed=seed,
        machine="", seconds=0.0, recipe=recipe,
    )  # fmt: skip


def test_published_and_measured_stand_side_by_side():
    results = [
        result("MoCo v2", "semi-1", "top1", 42.0),
        result("MoCo v2", "semi-1", "top1", 44.0, seed=1),
        result("MoCo v2", "semi-1", "top5", 70.0),
        result("ours", "semi-1", "top1", 50.0, data="cifar"),
        result("another", "semi-1", "top1", 1.0),
    ]
    table = compare(CELLS, results, data="imagenet")
    assert table.header[:5] == (
        "encoder", "semi-1 top1, published", "semi-1 top1, ours", "semi-1 top5, published", "semi-1 top5, ours",
    )  # fmt: skip
    assert table.header[-2:] == ("semi-10 top1, ours", "semi-10 top5, ours")  # nobody published a top-5
    assert table.rows == [
        ("MoCo v2", "42.1", "43.00 ± 1.41 (2)", "70.9", "70.00", "60.9", "", ""),
        ("ours", "", "", "", "", "", "", ""),
    ]
    assert missing_cells(CELLS, results, data="imagenet") == CELLS[1:]
    assert missing_cells(CELLS, results, data="imagenet", backbones={"MoCo v2": ""}) == CELLS[1:]
    assert missing_cells(CELLS, results, data="imagenet", backbones={"MoCo v2": "other weights"}) == CELLS
    assert missing_cells(CELLS, results, data="imagenet", seed=1) == CELLS


def test_published_figures_keep_their_decimals():
    cells = [replace(CELLS[0], published={"top1": 93.56}), replace(CELLS[2], published={"top1": 93.0})]
    assert [row[1] for row in compare(cells, [], data="cifar").rows] == ["93.56", "93.00"]


def test_encoders_are_named_by_their_rows():
    assert encoder_folders(["MoCo v2=runs/a=b"], CELLS) == {"MoCo v2": "runs/a=b"}
    for wrong in ("MoCo v2", "moco=runs/a", "ours="):
        with pytest.raises(ValueError, match="NAME=FOLDER, NAME one of MoCo v2, ours"):
            encoder_folders([wrong], CELLS)
