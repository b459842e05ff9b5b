"""The manifest reader: Parquet, journals, both, and what is damaged."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairdata import ViewsIndex
from pairdata.string_array import StringArray


def _row(key, k, partner=None, alpha=None, path=None):
    return {
        "key": key,
        "k": k,
        "path": path or f"{key}.{k}.png",
        "generator": "eldm",
        "seed": 1,
        "partner_key": partner,
        "alpha": alpha,
        "sha256": "00",
    }


ROWS = [
    _row("b/2.png", 0),
    _row("a/1.png", 1),
    _row("a/1.png", 0),
    _row("b/2.png", 1, "a/1.png", 0.75),
    _row("a/1.png", 2, "b/2.png", 0.5),
    _row("c/ü.png", 0),
]


def _parquet(root, rows):
    pq.write_table(pa.Table.from_pylist(rows), root / "manifest.parquet")


def _journal(root, name, rows, end=""):
    (root / "journals").mkdir(exist_ok=True)
    (root / "journals" / name).write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


@pytest.mark.parametrize("form", ["parquet", "journals", "both"])
def test_views_are_found_by_key_in_every_form(tmp_path, form):
    if form == "parquet":
        _parquet(tmp_path, ROWS)
    elif form == "journals":
        _journal(tmp_path, "0.jsonl", ROWS[:3])
        _journal(tmp_path, "1.jsonl", ROWS[3:])
    else:
        _parquet(tmp_path, ROWS[:4])
        _journal(tmp_path, "0.jsonl", ROWS[3:])
    views = ViewsIndex(tmp_path)
    assert len(views) == 4
    assert views.paths("a/1.png") == ["a/1.png.0.png", "a/1.png.1.png"]
    assert views.paths("c/ü.png") == ["c/ü.png.0.png"]
    assert views.paths("unknown.png") == []
    mixed = ViewsIndex(tmp_path, interpolated=True)
    assert mixed.paths("a/1.png") == ["a/1.png.2.png"]
    assert mixed.partners_of("b/2.png") == [("a/1.png", 0.75)]


@pytest.mark.parametrize("form", ["parquet", "journal"])
def test_a_partner_without_alpha_is_the_image_that_the_view_shows(tmp_path, form):
    rows = [_row("a.png", 0, "b.png"), _row("a.png", 1, "b.png", 0.5), _row("b.png", 0)]
    _parquet(tmp_path, rows) if form == "parquet" else _journal(tmp_path, "0.jsonl", rows)
    views = ViewsIndex(tmp_path)
    assert (views.paths("a.png"), views.paths("b.png")) == (["a.png.0.png"], ["b.png.0.png"])
    assert ViewsIndex(tmp_path, interpolated=True).paths("a.png") == ["a.png.1.png"]


OUTSIDE = ["../a.png", "/etc/a.png", "a/../../b.png", "..\\a.png", "C:\\a.png", ""]


@pytest.mark.parametrize("form", ["parquet", "journal"])
@pytest.mark.parametrize("column", ["key", "path", "partner_key"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_outside_the_folder_are_rejected(tmp_path, form, column, path):
    rows = [_row("a.png", 0), _row("a.png", 1, "b.png", 0.5) | {column: path}]
    _parquet(tmp_path, rows) if form == "parquet" else _journal(tmp_path, "0.jsonl", rows)
    for interpolated in (False, True):
        with pytest.raises(ValueError, match=f"expected {column} to be a path inside its folder, got") as refused:
            ViewsIndex(tmp_path, interpolated=interpolated)
        assert repr(path) in str(refused.value) and "\n" not in str(refused.value)


NO_ROWS = ["{", "[]", "3", "null", '"a.png"', "{}", "[" * 20000, "\\x00", '{"key": "a.png", "k": 0}',
           json.dumps(_row("a.png", 0) | {"k": "0"}), json.dumps(_row("a.png", 0) | {"k": 2**40}),
           json.dumps(_row("a.png", 0) | {"k": True}), json.dumps(_row("a.png", 0) | {"path": 1}),
           json.dumps(_row("\ud800", 0)), json.dumps(_row("a.png", 0, "b.png", 2.0)),
           json.dumps(_row("a.png", 0, "b.png", float("nan")))]  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS)
def test_the_error_names_a_broken_line(tmp_path, line):
    _journal(tmp_path, "0.jsonl", ROWS[:1], end="\n" + line + "\n" + json.dumps(ROWS[2]) + "\n")
    with pytest.raises(ValueError, match=r"journals/0\.jsonl, line 3: expected .*`viewgen verify .* --repair`"):
        ViewsIndex(tmp_path)


def test_a_torn_last_line_is_left_out(tmp_path):
    _journal(tmp_path, "0.jsonl", ROWS[:2], end='{"key": "d/4.png", "k": 0, "pa')
    views = ViewsIndex(tmp_path)
    assert len(views) == 2
    assert views.paths("d/4.png") == []


def test_the_later_row_of_a_view_counts(tmp_path):
    _parquet(tmp_path, [_row("a.png", 0, path="old.png"), _row("b.png", 0)])
    _journal(tmp_path, "0.jsonl", [_row("a.png", 0, path="new.png")])
    assert ViewsIndex(tmp_path).paths("a.png") == ["new.png"]


def test_many_rows_agree_with_a_dictionary(tmp_path):
    rng = np.random.default_rng(0)
    rows = [_row(f"{rng.integers(300):03d}/{rng.integers(9)}.png", int(rng.integers(4))) for _ in range(4000)]
    _journal(tmp_path, "0.jsonl", rows)
    expected: dict = {}
    for row in sorted(rows, key=lambda row: row["k"]):
        expected.setdefault(row["key"], {})[row["k"]] = row["path"]
    views = ViewsIndex(tmp_path)
    keys = [*expected, "unknown"]
    first, counts = views.align(StringArray.pack(keys))
    for key, start, count in zip(keys, first, counts, strict=True):
        paths = [views.files[row] for row in range(start, start + count)]
        assert paths == list(expected.get(key, {}).values()) == views.paths(key)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no manifest of views"),
        (
            lambda root: _journal(root, "0.jsonl", [_row("a.png", 0, "b.png", 0.5)]),
            "expected views that are not interpolated",
        ),
        (lambda root: (root / "manifest.parquet").write_bytes(b"PAR1torn"), "not a readable manifest"),
        (lambda root: _parquet(root, [_row("a.png", 0, "b.png", float("nan"))]), "expected alpha from 0 to 1 or null"),
        (lambda root: _parquet(root, [_row("a.png", 0), _row(None, 1, path="b.png")]), "has a row without key"),
        (lambda root: _parquet(root, [_row("a.png", "x")]), "is not a manifest of views"),
        (
            lambda root: pq.write_table(pa.table({"key": ["a"]}), root / "manifest.parquet"),
            "the columns k, path",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        ViewsIndex(tmp_path)
