import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from viewgen import merge_journals
from viewgen.manifest import Journal, Row
from viewgen.sheet import choose_rows, contact_sheet

TILE = 40


def row(key, k, **changes):
    values = {
        "key": key,
        "k": k,
        "path": f"{key}.{k}.png",
        "generator": "unclip",
        "model": "tiny",
        "model_hash": "0",
        "seed": 1,
        "strength": 100.0 * k,
        "foreground_ratio": None,
        "partner_key": None,
        "alpha": None,
        "supervision": "none",
        "licence": "none",
        "width": 8,
        "height": 8,
        "sha256": "0",
    }
    return Row(**{**values, **changes})


def colour(index, k=None):
    return (10 * index, 200 if k is None else 20 * k, 0 if k is None else 250)


def write(root, count, views=2, **changes):
    """``count`` images and their views, each of one colour; the rows in two journals, not in order."""
    keys = [f"folder {index % 3}/ü{index:02d}.png" for index in range(count)]
    for index, key in enumerate(keys):
        for k in (None, *range(views)):
            path = root / ("images" if k is None else "views") / (key if k is None else f"{key}.{k}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour(index, k)).save(path)
    for place in (1, 0):
        with Journal(root / "views" / "journals" / f"{place:05d}-of-00002.jsonl") as journal:
            journal.append([row(key, k, **changes) for key in keys[place::2] for k in reversed(range(views))])
    return keys


def draw(root, count=4, suffix="png", **options):
    options = {"count": count, "tile": TILE, **options}
    path = contact_sheet(root / "images", root / "views", root / f"out/sheet.{suffix}", **options)
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"))


def left_of(column):
    return 8 + column * (TILE + 8)


def pictures(sheet, column):
    """The colours of the pictures in a column, from the top down."""
    strip = sheet[:, left_of(column) : left_of(column) + TILE]
    flat = (strip == strip[:, :1]).all(axis=(1, 2)) & (strip[:, 0] != 255).any(axis=1)
    colours = [tuple(map(int, strip[line, 0])) for line in np.flatnonzero(flat)]
    return [shade for place, shade in enumerate(colours) if place == 0 or colours[place - 1] != shade]


@pytest.mark.parametrize("folded", [False, True])
def test_sources_stand_above_their_views(tmp_path, folded):
    keys = write(tmp_path, 5)
    if folded:
        merge_journals(tmp_path / "views")
    sheet = draw(tmp_path, count=5)
    for column, key in enumerate(sorted(keys)):
        index = keys.index(key)
        assert pictures(sheet, column) == [colour(index), colour(index, 0), colour(index, 1)]


def test_more_than_eight_images_go_on_below(tmp_path):
    keys = write(tmp_path, 10, views=1)
    sheet = draw(tmp_path, count=20)
    ordered = [keys.index(key) for key in sorted(keys)]
    assert pictures(sheet, 0) == [
        shade for index in (ordered[0], ordered[8]) for shade in (colour(index), colour(index, 0))
    ]
    assert len(pictures(sheet, 2)) == 2


@pytest.mark.parametrize("folded", [False, True])
def test_the_choice_is_drawn_from_all_images_by_its_seed(tmp_path, monkeypatch, folded):
    monkeypatch.setattr("viewgen.manifest.merge.GROUP_ROWS", 7)
    keys = write(tmp_path, 30, views=3)
    views = tmp_path / "views"
    if folded:
        merge_journals(views)
    chosen = set()
    for seed in range(20):
        groups = choose_rows(views, 5, seed)
        assert [[each["k"] for each in group] for group in groups] == [[0, 1, 2]] * 5
        assert groups == choose_rows(views, 5, seed)
        chosen |= {group[0]["key"] for group in groups}
    assert len(chosen) > 25
    assert [group[0]["key"] for group in choose_rows(views, 4, None)] == sorted(keys)[:4]
    assert len(choose_rows(views, 100, 0)) == 30


def test_only_some_row_groups_of_the_manifest_are_read(tmp_path, monkeypatch):
    write(tmp_path, 30, views=1)
    manifest = merge_journals(tmp_path / "views")
    table = pq.read_table(manifest)
    pq.write_table(table, manifest, row_group_size=2)
    read, true_read = [], pq.ParquetFile.read_row_group

    def counting(file, group, **options):
        read.append(group)
        return true_read(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    assert len(choose_rows(tmp_path / "views", 3, 0)) == 3
    assert len(read) <= 6


def test_the_later_row_of_a_view_counts(tmp_path):
    write(tmp_path, 1, views=1)
    with Journal(tmp_path / "views" / "journals" / "00009-of-00010.jsonl") as journal:
        journal.append([row("folder 0/ü00.png", 0, strength=7.0)])
    ((only,),) = choose_rows(tmp_path / "views", 1, 0)
    assert only["strength"] == 7


def test_what_a_view_was_made_with_is_written_below_it(tmp_path, monkeypatch):
    written, true_text = [], ImageDraw.ImageDraw.text

    def noting(pen, corner, text, *options):
        written.append(text)
        true_text(pen, corner, text, *options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noting)
    (key,) = write(tmp_path, 1, strength=200.0, foreground_ratio=0.5, partner_key="other.png", alpha=0.25)
    sheet = draw(tmp_path, tile=400, strength_unit="noise level")
    caption = ["alpha 0.25", "with other.png"]
    first, second = (f"k = {k}  noise level 200" for k in (0, 1))
    assert written == ["unclip: tiny", key, "foreground 0.50", first, *caption, second, *caption]
    below = sheet[left_of(0) + 400 :, :400]
    assert (below < 120).all(axis=2).sum() > 500
    written.clear()
    draw(tmp_path, tile=60)
    assert all(len(text) < 30 for text in written)
    assert any("..." in text for text in written)


def test_missing_pictures_and_odd_keys_do_not_stop_it(tmp_path):
    keys = write(tmp_path, 2)
    (tmp_path / "images" / keys[0]).unlink()
    (tmp_path / "views" / f"{keys[1]}.0.png").write_bytes(b"broken")
    odd = "a\nb" * 40 + ".png"
    with (tmp_path / "views" / "journals" / "00001-of-00002.jsonl").open("a") as lines:
        lines.write(json.dumps(asdict(row(odd, 0, strength=None))) + "\n")
    sheet = draw(tmp_path, count=9)
    grey = (228, 228, 228)
    assert grey in map(tuple, sheet[:, left_of(0) + 2].tolist())
    assert sheet.shape[1] == left_of(3)


def test_jpeg_is_written_too_and_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="expected journals"):
        draw(tmp_path)
    Journal(tmp_path / "views" / "journals" / "00000-of-00001.jsonl")
    with pytest.raises(ValueError, match="one or more views"):
        draw(tmp_path)
    manifest = merge_journals(tmp_path / "views")
    with pytest.raises(ValueError, match="one or more views"):
        draw(tmp_path)
    manifest.unlink()
    write(tmp_path, 2)
    assert draw(tmp_path, suffix="jpg").shape == draw(tmp_path).shape
    with pytest.raises(ValueError, match=r"\.png or \.jpg"):
        draw(tmp_path, suffix="pdf")
    with pytest.raises(ValueError, match="count of 1 or more"):
        draw(tmp_path, count=0)


@pytest.mark.parametrize("column", ["key", "path", "partner_key"])
def test_a_manifest_that_lists_a_path_outside_is_rejected(tmp_path, column):
    write(tmp_path, 2)
    manifest = merge_journals(tmp_path / "views")
    rows = [line | {column: "../x.png"} for line in pq.read_table(manifest).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(manifest)), manifest)
    with pytest.raises(ValueError, match=f"manifest.parquet: expected {column} to be a path inside its folder"):
        draw(tmp_path)


def test_the_error_names_a_damaged_manifest(tmp_path):
    write(tmp_path, 2)
    manifest = merge_journals(tmp_path / "views")
    whole = manifest.read_bytes()
    for damaged in (b"", whole[:-9], whole[:4] + b"\0" * 500 + whole[504:]):
        manifest.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot read .*manifest.parquet \(.*\); run `viewgen index` again"):
            draw(tmp_path)


def test_a_view_that_is_a_link_out_of_the_folder_is_not_shown(tmp_path):
    (key,) = write(tmp_path, 1, views=1)
    view = tmp_path / f"views/{key}.0.png"
    view.rename(tmp_path / "elsewhere.png")
    view.symlink_to(tmp_path / "elsewhere.png")
    assert pictures(draw(tmp_path, count=1), 0)[:2] == [colour(0), (228, 228, 228)]
