"""Records: what is packed, who can read it, and what becomes of broken images, stopped runs and damaged files."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from genviews_core.lock import lock_folder
from pairdata import FFCVLoader, FolderLoader, Records, decode_rgb, index_images, pack_records, verify_records
from pairdata.decode import decode_square
from pairdata.ffcv_format import BetonWriter, read_tables
from pairdata.shards import ShardWriter

NAMES = ["a/ü.png", "a/with space.jpg", "b/line\nbreak.png", "b/%41.0.png", "b/deep/er/q'uote.webp", "root.bmp"]


def _picture(path, seed, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def write_view(root, key, k, seed, **columns):
    _picture(root / f"{key}.{k}.png", seed, (24, 24))
    (root / "journals").mkdir(exist_ok=True)
    with (root / "journals" / "0.jsonl").open("a") as journal:
        journal.write(json.dumps({"key": key, "k": k, "path": f"{key}.{k}.png", **columns}) + "\n")


@pytest.fixture
def images(tmp_path):
    """Six images of odd names, sizes and formats."""
    for seed, name in enumerate(NAMES):
        _picture(tmp_path / "images" / name, seed, (40 + seed, 30))
    return tmp_path / "images"


def test_every_key_label_size_and_pixel_is_there(images, tmp_path):
    done = pack_records(images, tmp_path / "r.beton", size=16, mode="raw", shard_images=4)
    assert (done.images, done.views, done.failures) == (6, 0, 0)
    records, index = Records(tmp_path / "r.beton"), index_images(images)
    assert len(records) == 6
    assert records.classes == index.classes == ("a", "b")
    assert [records.key(i) for i in range(6)] == [index.key(i) for i in range(6)]
    for i in range(6):
        assert records.position(records.key(i)) == i
        square, original = decode_square(index.path(i), 16)
        row = records.rows[i]
        stored = row["square"][0]
        data = records.maps[i // 4][int(stored["place"]) :][: int(stored["bytes"])]
        assert data == square.tobytes()
        assert (stored["height"], stored["width"]) == original
        assert (row["index"], row["label"]) == (i, index.labels[i])
    for wrong in ("", "a", "zzz", NAMES[0] + "x"):
        with pytest.raises(KeyError):
            records.position(wrong)
    assert (tmp_path / "r.beton" / "failures.jsonl").read_text() == ""


def test_ffcv_reads_the_tables_that_we_write(images, tmp_path):
    """Its own reader, on a file of ours: the same fields, rows and allocations."""
    reader = pytest.importorskip("ffcv.reader", reason="FFCV is not installed (extra ffcv)")
    for key in ("a/ü.png", "root.bmp"):
        write_view(tmp_path / "views", key, 0, 7)
    pack_records(images, tmp_path / "r", views=tmp_path / "views", size=16, mode="jpeg")
    theirs, ours = reader.Reader(tmp_path / "r" / "00000.beton"), read_tables(tmp_path / "r" / "00000.beton")
    assert theirs.field_names == list(ours.rows.dtype.names)
    for column, name in enumerate(theirs.field_names):
        assert np.array_equal(theirs.metadata[f"f{column}"], ours.rows[name])
    assert np.array_equal(np.sort(theirs.alloc_table["ptr"]), ours.offsets)
    pages = theirs.alloc_table["ptr"] // theirs.page_size
    assert np.array_equal(pages, (theirs.alloc_table["ptr"] + theirs.alloc_table["size"] - 1) // theirs.page_size)
    assert len(theirs.alloc_table) == 6 * 2 + 2  # missing views point to the image


@pytest.mark.slow
def test_ffcv_s_own_loader_gives_the_same_pixels(images, tmp_path):
    loader = pytest.importorskip("ffcv.loader", reason="FFCV is not installed (extra ffcv)")
    write_view(tmp_path / "views", "root.bmp", 0, 7)
    pack_records(images, tmp_path / "r", views=tmp_path / "views", size=16, mode="raw")
    path, keep = str(tmp_path / "r" / "00000.beton"), ("real", "view0", "label", "view0_exists")
    unused = {name: None for name in read_tables(tmp_path / "r" / "00000.beton").rows.dtype.names if name not in keep}
    batch = next(iter(loader.Loader(path, 6, num_workers=1, pipelines=unused)))
    by_name = dict(zip([name for name in Records(tmp_path / "r").layout.fields if name in keep], batch, strict=True))
    index = index_images(images)
    expected = np.stack([decode_square(index.path(i), 16)[0] for i in range(6)])
    assert np.array_equal(np.asarray(by_name["real"]), expected)
    expected[5] = decode_square(tmp_path / "views" / "root.bmp.0.png", 16)[0]
    assert np.array_equal(np.asarray(by_name["view0"]), expected)
    assert np.asarray(by_name["view0_exists"]).ravel().tolist() == [0, 0, 0, 0, 0, 1]
    assert np.asarray(by_name["label"]).ravel().tolist() == index.labels.tolist()


def test_broken_images_are_counted_and_the_packing_goes_on(images, tmp_path):
    (images / "a/ü.png").write_bytes(b"not an image")
    (images / "root.bmp").write_bytes(b"")
    write_view(tmp_path / "views", "a/with space.jpg", 0, 3)
    (tmp_path / "views" / "a/with space.jpg.0.png").write_bytes(b"broken")
    done = pack_records(images, tmp_path / "r", views=tmp_path / "views", size=16, mode="raw", shard_images=2)
    assert done.failures == 3
    lines = [json.loads(line) for line in (tmp_path / "r" / "failures.jsonl").read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == sorted(
        [str(images / "a/ü.png"), str(images / "root.bmp"), str(tmp_path / "views" / "a/with space.jpg.0.png")]
    )
    assert all(line["why"].startswith("not an image of a known format") for line in lines)
    rows = Records(tmp_path / "r").rows
    index = index_images(images)
    keys = [index.key(i) for i in range(6)]
    missing = {keys.index("a/ü.png"), keys.index("root.bmp")}
    assert [int(i) for i in rows["index"]] == [(i + 1) % 6 if i in missing else i for i in range(6)]
    assert not rows["square"]["exists"][:, 1].any()


def test_value_range_is_the_same_in_records_and_folders(tmp_path):
    folder, scaled = tmp_path / "deep", (0.0, 8190.0)
    folder.mkdir()
    levels = np.linspace(300, 4300, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(folder / "1.png")
    pack_records(folder, tmp_path / "r", size=8, mode="raw", value_range=scaled)
    packed = next(iter(FFCVLoader(tmp_path / "r", batch_size=1, size=8)))
    read = next(iter(FolderLoader(folder, batch_size=1, size=8, value_range=scaled)))
    assert np.array_equal(packed.real, read.real)
    assert np.abs(read.real[0, 0].numpy() - levels * (255 / 8190)).max() <= 0.5
    with pytest.raises(ValueError, match="value_range"):
        pack_records(folder, tmp_path / "r", size=8, mode="raw")


def test_jpeg_squares_differ_by_what_their_quality_loses(images, tmp_path):
    errors = {}
    for quality in (95, 90, 30):
        out = tmp_path / str(quality)
        pack_records(images, out, size=32, mode="jpeg", quality=quality)
        records = Records(out)
        squares = records.rows["square"][:, 0]
        stored = [
            decode_rgb(records.maps[0][place : place + length])
            for place, length in zip(squares["place"].tolist(), squares["bytes"].tolist(), strict=True)
        ]
        expected = np.stack([decode_square(images / records.key(i), 32)[0] for i in range(6)]).astype(int)
        errors[quality] = np.abs(np.stack([np.asarray(image) for image in stored]) - expected).mean()
    assert 0 < errors[95] < errors[90] < 0.7 * errors[30]
    assert errors[90] < 5  # half the chroma's resolution, on small and colourful pictures


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.name != "rows.npy"}


def test_a_packing_that_was_killed_goes_on_and_ends_like_one_that_was_not(images, tmp_path):
    for seed in range(60):
        _picture(images / f"c/{seed}.png", seed)
    options = "size=24, mode='raw', shard_images=4"
    whole, out = tmp_path / "whole", tmp_path / "out"
    pack_records(images, whole, size=24, mode="raw", shard_images=4, workers=2)
    slow = (
        "import sys, time; import pairdata.shards as s; from pairdata import pack_records\n"
        "pack = s.ShardWriter.pack\n"
        "s.ShardWriter.pack = lambda self, n: (time.sleep(0.2), pack(self, n))[1]\n"
        f"pack_records(sys.argv[1], sys.argv[2], {options})"
    )
    process = subprocess.Popen([sys.executable, "-c", slow, images, out])
    while not (out / "00001.json").exists():
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "records.json").exists()
    with pytest.raises(ValueError, match="the packing has not ended"):
        Records(out)
    (out / "00009.beton.tmp").write_bytes(b"half a file")
    kept = (out / "00000.beton").stat().st_mtime_ns
    seen = []
    pack_records(images, out, size=24, mode="raw", shard_images=4, on_progress=lambda *at: seen.append(at))
    assert (out / "00000.beton").stat().st_mtime_ns == kept
    assert 8 <= seen[0][0] < seen[-1][0] == seen[-1][1] == 66
    assert _files(out) == _files(whole)
    assert np.array_equal(Records(out).rows, Records(whole).rows)


def test_the_size_of_records_is_known_before(images, tmp_path, monkeypatch):
    said, usage, expected = [], namedtuple("usage", "total used free"), {}
    for mode in ("raw", "jpeg"):
        pack_records(images, tmp_path / mode, size=96, mode=mode, on_message=said.append)
        line = r"records of 6 images: about ([\d.]+) KiB of disk, .* are free in .*"
        expected[mode] = float(re.fullmatch(line, said.pop())[1])
        pack_records(images, tmp_path / mode, size=96, mode=mode, on_message=said.append)
        assert not said  # nothing is left to pack
    size = sum(file.stat().st_blocks / 2 for file in (tmp_path / "raw").glob("*.beton"))  # without the holes
    assert 0.7 * size < expected["raw"] < 1.4 * size and expected["jpeg"] < expected["raw"] / 4
    monkeypatch.setattr("genviews_core.disk.shutil.disk_usage", lambda path: usage(0, 0, 10_000))
    with pytest.raises(ValueError, match=r"of free disk for records of 6 images in .*, got 9.8 KiB; free some space"):
        pack_records(images, tmp_path / "full", size=96, mode="raw")


def test_damage_is_found_and_repaired(images, tmp_path):
    out = tmp_path / "r"
    options = {"size": 16, "mode": "raw", "shard_images": 2}
    pack_records(images, out, **options)
    sound = _files(out)
    assert verify_records(out) == {}
    place = int(Records(out).rows[3]["square"][0]["place"])
    with (out / "00001.beton").open("r+b") as file:
        file.seek(place + 5)
        file.write(b"\xff\x00\xff")
    assert list(verify_records(out)) == ["00001.beton"]
    pack_records(images, out, **options)
    assert verify_records(out) == {} and _files(out) == sound
    os.truncate(out / "00002.beton", 100)
    with pytest.raises(ValueError, match=r"bytes in .*00002\.beton, got 100 bytes"):
        Records(out)
    (out / "rows.npy").write_bytes(b"nothing")
    pack_records(images, out, **options)
    assert verify_records(out) == {} and _files(out) == sound


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 17}, "size"),
        ({"mode": "jpeg"}, "mode"),
        ({"shard_images": 3}, "shard_images"),
    ],
)
def test_a_folder_of_other_records_is_left_alone(images, tmp_path, options, says):
    same = {"size": 16, "mode": "raw"}
    pack_records(images, tmp_path / "r", **same)
    before = _files(tmp_path / "r")
    with pytest.raises(ValueError, match=f"differ in: .*{says}"):
        pack_records(images, tmp_path / "r", **same | options)
    _picture(images / "new.png", 99)
    with pytest.raises(ValueError, match="differ in: images, names"):
        pack_records(images, tmp_path / "r", **same)
    assert _files(tmp_path / "r") == before


def _newer(out):
    index = json.loads((out / "records.json").read_text())
    (out / "records.json").write_text(json.dumps(index | {"format": 2}))


def _half(out):
    (out / "records.json").write_text('{"format": ')


def _other_rows(out):
    np.save(out / "rows.npy", np.zeros(3))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_newer, "have version 2, expected 1"),
        (_half, "is damaged"),
        (_other_rows, "does not belong to"),
        (lambda out: (out / "00000.beton").unlink(), "00000.beton, got no file"),
    ],
)
def test_records_that_cannot_be_used_are_refused_in_one_line(images, tmp_path, damage, says):
    pack_records(images, tmp_path / "r", size=16, mode="raw")
    damage(tmp_path / "r")
    with pytest.raises(ValueError, match=says) as refused:
        Records(tmp_path / "r")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", ["place", "bytes"])
@pytest.mark.parametrize("value", [1 << 24, 2**31 + 7, 2**32 - 1, 2**63, 2**64 - 2000, 2**64 - 1])
def test_no_square_is_read_outside_its_file(images, tmp_path, field, value):
    """2**64 - 2000 plus the square's length overflows to a small number, so a check of the sum would accept it."""
    pack_records(images, tmp_path / "r", size=16, mode="raw")
    rows = np.load(tmp_path / "r" / "rows.npy")
    rows["square"][field][3, 0] = value if field == "place" else value % 2**32
    np.save(tmp_path / "r" / "rows.npy", rows)
    with pytest.raises(ValueError, match=r"rows\.npy is damaged \(row 3: a square [^\n]*; pack again to restore it"):
        Records(tmp_path / "r")
    pack_records(images, tmp_path / "r", size=16, mode="raw")
    assert len(Records(tmp_path / "r")) == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 6),
        ("index", -1),
        ("label", 2),
        ("label", -2),
        ("views", 2),
        ("mixed", 2),
        ("key", (2**64 - 1, 4)),
        ("square", (0, 768, False, 30, 40)),
        ("square", (0, 768, True, 0, 40)),
        ("partner", 6),
        ("alpha", np.nan),
        ("alpha", 1.5),
    ],
)
def test_the_error_names_a_row_with_values_out_of_range(images, tmp_path, field, value):
    write_view(tmp_path / "views", "root.bmp", 0, 7, partner_key="a/ü.png", alpha=0.5)
    write_view(tmp_path / "views", "root.bmp", 1, 7)
    folders = {"views": tmp_path / "views", "interpolated": tmp_path / "views"}
    pack_records(images, tmp_path / "r", **folders, size=16, mode="raw")
    rows = np.load(tmp_path / "r" / "rows.npy")
    rows[field][4] = value
    np.save(tmp_path / "r" / "rows.npy", rows)
    with pytest.raises(ValueError, match=r"rows\.npy is damaged \(row 4: "):
        Records(tmp_path / "r")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("shard_images",), 0),
        (("shard_images",), 2.0),
        (("shard_images",), True),
        (("shard_images",), 3),
        (("images",), 0),
        (("images",), None),
        (("layout", "size"), 10**9),
        (("layout", "mode"), "png"),
        (("layout", "extra"), 1),
        (("layout",), []),
        (("shards",), [{"file": "../00000.beton", "bytes": 1, "sha256": ""}]),
        (("shards",), [{"file": "00000.beton", "bytes": -1, "sha256": ""}]),
        (("shards",), ["00000.beton"]),
        (("view_counts",), {"0": "6"}),
        (("classes",), "ab"),
        (("more",), 1),
        ((), []),
    ],
)
def test_an_index_with_invalid_fields_is_a_one_line_error(images, tmp_path, path, value):
    pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=6)
    index = json.loads((tmp_path / "r" / "records.json").read_text())
    place = index
    for name in path[:-1]:
        place = place[name]
    if path:
        place[path[-1]] = value
    (tmp_path / "r" / "records.json").write_text(json.dumps(index if path else value))
    with pytest.raises(ValueError, match=r"^[^\n]*records\.json is damaged \([^\n]*\); pack again to restore it$"):
        Records(tmp_path / "r")


@pytest.mark.parametrize("name", ["size", "mode", "quality", "views", "mixed"])
def test_a_layout_without_a_field_is_rejected(images, tmp_path, name):
    pack_records(images, tmp_path / "r", size=16, mode="raw")
    index = json.loads((tmp_path / "r" / "records.json").read_text())
    del index["layout"][name]
    (tmp_path / "r" / "records.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"the field layout\.{name} is missing"):
        Records(tmp_path / "r")


def test_too_many_open_files_is_an_error_with_a_remedy(images, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=1)
    monkeypatch.setattr("pairdata.records.mmap.mmap", refuse)
    with pytest.raises(ValueError, match=r"Too many open files\); raise the limit with `ulimit -n 4096`, or pack"):
        Records(tmp_path / "r")


def test_one_process_at_a_time_packs_into_a_folder(images, tmp_path):
    with lock_folder(tmp_path / "r"), pytest.raises(ValueError, match="r is being written by"):
        pack_records(images, tmp_path / "r", size=16, mode="raw")
    assert pack_records(images, tmp_path / "r", size=16, mode="raw").images == 6


def test_what_is_no_record_is_named(images, tmp_path):
    with pytest.raises(ValueError, match=r"expected records\.json in"):
        Records(images)
    pack_records(images, tmp_path / "r", size=16, mode="raw")
    with pytest.raises(ValueError, match="give its folder"):
        Records(tmp_path / "r" / "00000.beton")
    with pytest.raises(ValueError, match="not empty"):
        pack_records(images, images, size=16)
    write_view(tmp_path / "views", "other.png", 0, 1)
    with pytest.raises(ValueError, match="do not match"):
        pack_records(images, tmp_path / "s", views=tmp_path / "views")
    header = bytearray((tmp_path / "r" / "00000.beton").read_bytes())
    for place in (8, 16):  # num_samples and alloc_table_ptr
        huge = header[:place] + (2**64 - 1).to_bytes(8, "little") + header[place + 8 :]
        (tmp_path / "huge.beton").write_bytes(huge)
        with pytest.raises(ValueError, match=r"huge\.beton is not a readable record \(it is truncated\)"):
            read_tables(tmp_path / "huge.beton")
    header[:2] = (3).to_bytes(2, "little")
    (tmp_path / "old.beton").write_bytes(header)
    with pytest.raises(ValueError, match="version 2, got 3"):
        read_tables(tmp_path / "old.beton")
    for length in (0, 10, 1000, len(header) - 500):
        (tmp_path / "cut.beton").write_bytes(header[:2].replace(b"\3", b"\2") + header[2:length])
        with pytest.raises(ValueError, match=r"cut\.beton is not a readable record"):
            read_tables(tmp_path / "cut.beton")


def test_a_full_disk_ends_the_packing_and_leaves_no_part_of_a_file(images, tmp_path, monkeypatch):
    def full(self, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=2)
    (tmp_path / "r" / "00001.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(BetonWriter, "add", full)
        with pytest.raises(ValueError, match="the disk is full; free some space and run again"):
            pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=2)
    assert not list((tmp_path / "r").glob("*.tmp"))
    pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=2)
    assert verify_records(tmp_path / "r") == {}


def test_a_packer_process_that_dies_is_told_of(images, tmp_path, monkeypatch):
    monkeypatch.setattr(ShardWriter, "pack", lambda self, number: os._exit(9))
    with pytest.raises(ValueError, match="was killed"):
        pack_records(images, tmp_path / "r", size=16, mode="raw", shard_images=1, workers=2)
