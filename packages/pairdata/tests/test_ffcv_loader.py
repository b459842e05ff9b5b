"""The loader of records beside the loader of folders: the same batches, whatever is missing, broken or interrupted."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pairdata import FFCVLoader, FolderLoader, PairBatch, pack_records
from pairdata.batch import InterpolatedViews

needs_ffcv = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="FFCV is not installed (extra ffcv)")
TENSORS = ("real", "views", "view_exists", "index", "label", "sizes")
MIXED = ("interpolated", "partner", "alpha", "exists", "sizes")
COUNT = 23


def _picture(path, seed, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def _key(i):
    return f"{i // 8}/{i:02d}.png"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """23 images in three classes, three of them broken; 0 to 3 views, one broken; 0 to 2 interpolated views."""
    root = tmp_path_factory.mktemp("folders")
    images, views = root / "images", root / "views"
    rows = []
    for i in range(COUNT):
        _picture(images / _key(i), i, (20 + i, 30))
        for k in range(i % 4):
            rows.append({"key": _key(i), "k": k})
        for m in range(i % 3):
            rows.append({"key": _key(i), "k": 3 + m, "partner_key": _key((i + 5) % COUNT), "alpha": 0.3 + 0.02 * i})
    rows.append({"key": _key(4), "k": 3, "partner_key": "elsewhere/0.png", "alpha": 0.5})
    for number, row in enumerate(rows):
        row["path"] = f"{row['key']}.{row['k']}.png"
        _picture(views / row["path"], 100 + number, (16, 18))
    (views / "journals").mkdir()
    (views / "journals" / "0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for broken in (images / _key(6), images / _key(7), images / _key(22), views / f"{_key(3)}.1.png"):
        broken.write_bytes(b"broken")
    return images, views


@pytest.fixture(scope="module")
def records(folders, tmp_path_factory):
    """All of it, raw, in five files."""
    images, views = folders
    out = tmp_path_factory.mktemp("records") / "r.beton"
    pack_records(images, out, views=views, interpolated=views, size=16, mode="raw", shard_images=5)
    return out


def _same(first: PairBatch, second: PairBatch) -> bool:
    equal = all(torch.equal(getattr(first, name), getattr(second, name)) for name in TENSORS)
    if first.mixed is None or second.mixed is None:
        return equal and first.mixed is second.mixed
    return equal and all(torch.equal(getattr(first.mixed, name), getattr(second.mixed, name)) for name in MIXED)


def _folder(folders, places, **options):
    images, views = folders
    return FolderLoader(images, size=16, views=views, interpolated=views, views_per_image=places, **options)


@pytest.mark.parametrize("places", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 3])
def test_the_same_batches_as_from_folders(folders, records, places, workers):
    plain = _folder(folders, places, batch_size=5, seed=3)
    packed = FFCVLoader(records, batch_size=5, seed=3, views_per_image=places, workers=workers)
    assert len(packed) == len(plain) == 4
    assert packed.missing_views == plain.missing_views
    for epoch in (0, 1, 2, 5):
        pairs = list(zip(plain.epoch(epoch), packed.epoch(epoch), strict=True))
        assert all(_same(*pair) for pair in pairs)
    assert [packed.index.key(i) for i in range(COUNT)] == [plain.index.key(i) for i in range(COUNT)]
    assert not packed.failures


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_entered_at_any_step_and_left_at_any(records, workers):
    loader = FFCVLoader(records, batch_size=4, workers=workers, os_cache=False)
    whole = list(loader.epoch(1))
    left = loader.epoch(0)
    next(left)
    for start in range(len(loader) + 1):
        assert all(map(_same, loader.epoch(1, start), whole[start:]))
        assert len(list(loader.epoch(1, start))) == len(whole) - start
    left.close()
    with pytest.raises(ValueError, match="0 to 5, got 7"):
        loader.epoch(0, 7)


def test_a_kept_batch_is_not_written_over(records):
    loader = FFCVLoader(records, batch_size=2, workers=2)
    kept = list(loader.epoch(0))
    assert all(_same(batch, again) for batch, again in zip(kept, loader.epoch(0), strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch_without_duplicates(folders, records, shuffle):
    options = {"shuffle": shuffle, "drop_last": False}
    plain = [_folder(folders, 1, batch_size=3, rank=r, world_size=2, **options) for r in (0, 1)]
    packed = [FFCVLoader(records, batch_size=3, rank=r, world_size=2, **options) for r in (0, 1)]
    seen = []
    for ours, theirs in zip(packed, plain, strict=True):
        for batch, other in zip(ours.epoch(2), theirs.epoch(2), strict=True):
            assert _same(batch, other)
        positions = [ours.sampling.positions(2, step) for step in range(len(ours))]
        seen += np.concatenate(positions).tolist()
    assert sorted(seen) == list(range(COUNT))


def test_records_without_views_give_batches_without(folders, tmp_path):
    pack_records(folders[0], tmp_path / "r", size=16, mode="raw")
    plain = FolderLoader(folders[0], size=16, batch_size=4)
    packed = FFCVLoader(tmp_path / "r", batch_size=4)
    assert all(map(_same, plain, packed))
    assert packed.missing_views == 0
    assert next(iter(packed)).real.is_contiguous(memory_format=torch.channels_last)


def test_views_can_be_left_unread(records):
    batch = next(iter(FFCVLoader(records, batch_size=4, views_per_image=0)))
    assert batch.views.shape == (4, 0, 3, 16, 16) and batch.sizes.shape == (4, 1, 2)


@needs_ffcv
@pytest.mark.parametrize("workers", [0, 2])
def test_jpeg_records_give_the_same_up_to_jpeg(folders, tmp_path, workers):
    images, views = folders
    pack_records(images, tmp_path / "r", views=views, interpolated=views, size=16, mode="jpeg", quality=95)
    plain = _folder(folders, 2, batch_size=5)
    packed = FFCVLoader(tmp_path / "r", batch_size=5, views_per_image=2, workers=workers)
    for ours, theirs in zip(packed.epoch(1), plain.epoch(1), strict=True):
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in TENSORS[2:])
        assert isinstance(ours.mixed, InterpolatedViews) and isinstance(theirs.mixed, InterpolatedViews)
        assert all(torch.equal(getattr(ours.mixed, name), getattr(theirs.mixed, name)) for name in MIXED[2:])
        pairs = [(ours.real, theirs.real), (ours.views, theirs.views), (ours.mixed.partner, theirs.mixed.partner)]
        assert all((a.float() - b.float()).abs().mean() < 8 for a, b in pairs)
    assert not packed.failures


@needs_ffcv
def test_a_damaged_jpeg_is_replaced_and_named(folders, tmp_path):
    images, views = folders
    pack_records(images, tmp_path / "r", views=views, size=16, mode="jpeg")
    before = FFCVLoader(tmp_path / "r", batch_size=COUNT, shuffle=False)
    whole = next(iter(before))
    squares = before.index.rows["square"]
    with (tmp_path / "r" / "00000.beton").open("r+b") as file:
        for row, column in ((10, 0), (13, 1)):
            file.seek(int(squares[row, column]["place"]))
            file.write(b"\0" * 300)
    loader = FFCVLoader(tmp_path / "r", batch_size=COUNT, shuffle=False, workers=2)
    batch = next(iter(loader))
    assert set(loader.failures) == {_key(10), _key(13)}
    assert "--verify" in loader.failures[_key(10)]
    for row in range(COUNT):
        source = 11 if row == 10 else row
        assert batch.index[row] == whole.index[source] and torch.equal(batch.real[row], whole.real[source])
        if row != 13:
            assert torch.equal(batch.views[row], whole.views[source])
            assert torch.equal(batch.sizes[row], whole.sizes[source])
    assert not batch.view_exists[13, 0] and torch.equal(batch.views[13, 0], batch.real[13])


def test_without_ffcv_jpeg_records_say_what_to_install(folders, tmp_path, monkeypatch):
    from pairdata import jpeg_decoder

    pack_records(folders[0], tmp_path / "r", size=16)
    jpeg_decoder._ffcv.cache_clear()
    monkeypatch.setitem(sys.modules, "ffcv", None)
    with pytest.raises(ValueError, match="need FFCV, which is not installed; pip install ffcv") as refused:
        FFCVLoader(tmp_path / "r", batch_size=4)
    assert "\n" not in str(refused.value)
    jpeg_decoder._ffcv.cache_clear()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"batch_size": 24}, "23 images do not fill one step of 24"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank of 0 to 1, got 2"),
        ({"batch_size": 4, "size": 32}, "expected records of 32 px, got 16 px"),
    ],
)
def test_impossible_options_are_refused(records, options, says):
    with pytest.raises(ValueError, match=says):
        FFCVLoader(records, **options)
