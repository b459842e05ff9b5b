"""Folding in bounded memory, held against sorting everything at once."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from genviews_core.lock import lock_file
from viewgen import merge_journals, verify_views
from viewgen.manifest import Journal


def row(key: str, k: int, mark: int) -> dict:
    about = {"generator": "g", "model": "m", "model_hash": "h", "supervision": "none", "licence": "l"}
    path = f"{key}.{k}.png"
    optional = {"strength": None, "foreground_ratio": 0.5, "partner_key": None, "alpha": None}
    return {
        **about,
        **optional,
        "key": key,
        "k": k,
        "path": path,
        "seed": 2**62 + mark,
        "width": 1,
        "height": 1,
        "sha256": str(mark),
    }


@pytest.fixture
def journals(tmp_path) -> tuple[Path, list[dict]]:
    """300 views in four journals, in any order; some twice, the later one true; a torn last line."""
    draws = random.Random(0)
    keys = [f"{draws.choice(['a', 'a/b', 'ä', 'Z', 'a b', 'a-', '日本'])}/{index:03d}.jpg" for index in range(100)]
    rows = [row(key, k, 0) for key in keys for k in range(3)]
    draws.shuffle(rows)
    again = [{**old, "sha256": "later"} for old in rows[:40]]
    (tmp_path / "journals").mkdir()
    written = rows + again
    for index in range(4):
        lines = [json.dumps(line) + "\n" for line in written[index * 85 : (index + 1) * 85]]
        (tmp_path / "journals" / f"{index:05d}-of-00004.jsonl").write_text("".join(lines) + '{"key": "torn')
    final = {line["path"]: line for line in written}
    return tmp_path, sorted(final.values(), key=lambda line: (line["key"], line["k"]))


@pytest.mark.parametrize(("run", "run_group", "group"), [(10**6, 10**6, 10**6), (37, 5, 70), (9, 2, 1)])
def test_runs_and_ranges_change_nothing(journals, monkeypatch, run, run_group, group):
    root, expected = journals
    monkeypatch.setattr("viewgen.manifest.merge.RUN_ROWS", run)
    monkeypatch.setattr("viewgen.manifest.merge.RUN_GROUP_ROWS", run_group)
    monkeypatch.setattr("viewgen.manifest.merge.GROUP_ROWS", group)
    table = pq.read_table(merge_journals(root))
    assert table.to_pylist() == [{name: line[name] for name in table.column_names} for line in expected]
    assert pq.ParquetFile(root / "manifest.parquet").num_row_groups == -(-300 // group)
    assert sorted(path.name for path in root.iterdir()) == ["journals", "manifest.parquet"]


def test_a_line_longer_than_a_read_is_whole(journals, monkeypatch):
    root, expected = journals
    monkeypatch.setattr("viewgen.manifest.journal.READ_BYTES", 50)
    assert pq.read_table(merge_journals(root)).column("path").to_pylist() == [line["path"] for line in expected]


def test_verify_sees_all_of_many_rows(journals):
    root, expected = journals
    for line in expected[1:]:
        (root / line["path"]).parent.mkdir(parents=True, exist_ok=True)
        (root / line["path"]).touch()
    report = verify_views(root)
    assert (report.views, report.rows_without_file) == (300, [expected[0]["path"]])
    assert verify_views(root, repair=True).views == 300
    assert verify_views(root).clean


GOOD = row("b.png", 0, 3)
NO_ROWS = ["{", "[]", "3", "null", '"a.png"', "{}", "[" * 20000, "\\x00", json.dumps({"path": "a.png.0.png"}),
           *(json.dumps(GOOD | changed) for changed in (
               {"k": "0"}, {"k": 2**40}, {"k": True}, {"path": 1}, {"key": "\ud800"}, {"sha256": None}, {"alpha": "x"},
               {"path": "../b.png.0.png"}, {"path": "/b.png.0.png"}, {"key": ".."}, {"partner_key": "a\\..\\..\\b.png"},
           ))]  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS)
def test_a_broken_line_is_named_and_repaired(tmp_path, line, monkeypatch):
    """A broken line between valid rows, in a later block than the first; an incomplete last line is not an error."""
    monkeypatch.setattr("viewgen.manifest.journal.READ_BYTES", 600)
    rows = [json.dumps(row(f"{name}.png", 0, 0)) for name in "acde"]
    journal = tmp_path / "journals" / "0.jsonl"
    journal.parent.mkdir()
    journal.write_text("\n".join([*rows[:3], "", line, rows[3]]) + '\n{"torn')
    for name in "acde":
        (tmp_path / f"{name}.png.0.png").touch()
    with pytest.raises(ValueError, match=r"0\.jsonl, line 5: expected .*; `viewgen verify .* --repair`"):
        merge_journals(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    report = verify_views(tmp_path)
    assert report.views == 4 and not report.clean
    assert [line.split(":")[0] for line in report.broken_lines] == ["journals/0.jsonl, line 5"]
    verify_views(tmp_path, repair=True)
    assert journal.read_text().splitlines() == rows
    assert verify_views(tmp_path).clean
    assert pq.read_table(tmp_path / "manifest.parquet")["key"].to_pylist() == [f"{name}.png" for name in "acde"]


def test_verify_neither_reads_nor_deletes_outside(tmp_path):
    """Rows whose paths contain "..", and views that are links or are below one."""
    views, outside = tmp_path / "views", tmp_path / "outside"
    (views / "journals").mkdir(parents=True)
    outside.mkdir()
    for name in ("a.png.0.png", "b.png.0.png", "c.png.0.png"):
        (outside / name).write_bytes(b"mine")
    (views / "b.png.0.png").symlink_to(outside / "b.png.0.png")
    (views / "linked").symlink_to(outside)
    rows = [row("a.png", 0, 0) | {"path": "../outside/a.png.0.png"}, row("b.png", 0, 0), row("linked/c.png", 0, 0)]
    (views / "journals/0.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    report = verify_views(views, repair=True, check_bytes=True)
    assert (report.damaged, report.rows_without_file) == (["b.png.0.png"], ["linked/c.png.0.png"])
    assert len(report.broken_lines) == 1
    assert sorted(path.name for path in outside.iterdir()) == ["a.png.0.png", "b.png.0.png", "c.png.0.png"]


def test_a_folder_without_views_is_told_so(tmp_path):
    for call in (merge_journals, verify_views):
        with pytest.raises(ValueError, match="expected journals"):
            call(tmp_path)


def test_repairing_and_merging_fail_while_another_process_writes(journals):
    root, _ = journals
    paths = sorted((root / "journals").iterdir())
    with Journal(paths[0]):
        before = [path.read_bytes() for path in paths]
        with pytest.raises(ValueError, match=r"jsonl is being written by this process"):
            verify_views(root, repair=True)
        verify_views(root)  # verifying without repair needs no lock
    assert sorted((root / "journals").iterdir()) == paths and [path.read_bytes() for path in paths] == before
    with lock_file(root / "manifest.parquet"), pytest.raises(ValueError, match="parquet is being written by"):
        merge_journals(root)
