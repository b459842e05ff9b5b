"""The loader: what a batch holds, the order, ranks, workers, cache, and faulty files."""

import json

import pytest
import torch
from PIL import Image

from pairdata import FolderLoader


def _save(path, color, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(color)).save(path)


def _colour(i, k=-1):
    return (10 * i + 5, 40 * (k + 1), 200)


def _write_view(root, key, k, color, **columns):
    _save(root / f"{key}.{k}.png", color, (8, 8))
    (root / "journals").mkdir(exist_ok=True)
    with (root / "journals" / "0.jsonl").open("a") as journal:
        journal.write(json.dumps({"key": key, "k": k, "path": f"{key}.{k}.png", **columns}) + "\n")


@pytest.fixture
def images(tmp_path):
    """20 images of one color each, in two classes; image i has size (10 + i, 12)."""
    for i in range(20):
        _save(tmp_path / "images" / f"{i // 10}/{i:02d}.png", _colour(i), (12, 10 + i))
    return tmp_path / "images"


def _same(first, second):
    tensors = ("real", "views", "view_exists", "index", "label", "sizes")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


def test_a_view_that_is_a_link_out_of_its_folder_counts_as_missing(images, tmp_path):
    views = tmp_path / "views"
    for i in range(3):
        _write_view(views, f"0/{i:02d}.png", 0, _colour(i, 0))
    view = (views / "0/01.png.0.png").rename(tmp_path / "elsewhere.png")
    (views / "0/01.png.0.png").symlink_to(view)
    loader = FolderLoader(images, batch_size=20, size=8, views=views, shuffle=False)
    (batch,) = loader
    assert batch.view_exists[:3, 0].tolist() == [True, False, True]
    ((file, why),) = loader.failures.items()
    assert file == str(views / "0/01.png.0.png") and "a link to" in why


def test_a_batch_holds_the_images_it_names(images):
    loader = FolderLoader(images, batch_size=6, size=8)
    batches = list(loader)
    assert len(batches) == len(loader) == 3
    for batch in batches:
        assert batch.real.shape == (6, 3, 8, 8)
        assert batch.views.shape == (6, 0, 3, 8, 8)
        assert batch.mixed is None
        for row, i in enumerate(batch.index.tolist()):
            assert batch.real[row, :, 0, 0].tolist() == list(_colour(i))
            assert batch.label[row] == i // 10
            assert batch.sizes[row].tolist() == [[10 + i, 12]]
    assert len(torch.cat([batch.index for batch in batches]).unique()) == 18


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache_bytes", [0, 1500, 10**6])
def test_an_epoch_can_be_entered_at_any_step_and_repeats_exactly(images, workers, cache_bytes):
    plain = FolderLoader(images, batch_size=3, size=8, seed=4)
    loader = FolderLoader(images, batch_size=3, size=8, seed=4, workers=workers, cache_bytes=cache_bytes)
    interrupted = loader.epoch(1)
    next(interrupted)
    for epoch, start in ((0, 0), (2, 4), (2, 0), (0, 6)):
        expected = list(plain.epoch(epoch))[start:]
        batches = list(loader.epoch(epoch, start))
        assert len(batches) == len(expected) == 6 - start
        assert all(map(_same, batches, expected))


def test_epochs_and_seeds_are_ordered_differently_and_the_global_generator_is_left_alone(images):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    orders = set()
    for seed in (0, 1):
        loader = FolderLoader(images, batch_size=20, size=8, seed=seed)
        orders |= {tuple(next(loader.epoch(epoch)).index.tolist()) for epoch in (0, 1)}
    assert len(orders) == 4
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shuffle", [True, False])
def test_two_ranks_together_read_what_one_reads(images, shuffle):
    one = FolderLoader(images, batch_size=6, size=8, shuffle=shuffle)
    two = [FolderLoader(images, batch_size=3, size=8, shuffle=shuffle, rank=r, world_size=2) for r in (0, 1)]
    for whole, *halves in zip(one.epoch(3), *(loader.epoch(3) for loader in two), strict=True):
        assert torch.equal(whole.real, torch.cat([half.real for half in halves]))


@pytest.mark.parametrize(("batch_size", "world_size"), [(6, 1), (3, 2), (3, 3), (20, 1), (19, 1), (7, 4)])
def test_nothing_is_dropped_or_doubled_without_drop_last(images, batch_size, world_size):
    options = {"batch_size": batch_size, "size": 8, "drop_last": False, "world_size": world_size}
    loaders = [FolderLoader(images, rank=rank, **options) for rank in range(world_size)]
    batches = [list(loader) for loader in loaders]
    assert [len(loader) for loader in loaders] == [len(part) for part in batches]
    assert sorted(i for part in batches for batch in part for i in batch.index.tolist()) == list(range(20))


def test_unshuffled_images_come_in_the_order_of_their_keys(images):
    loader = FolderLoader(images, batch_size=20, size=8, shuffle=False)
    assert next(iter(loader)).index.tolist() == list(range(20))


def test_a_limit_takes_evenly_from_all_classes(images):
    loader = FolderLoader(images, batch_size=4, size=8, limit=4, shuffle=False)
    assert [loader.index.key(i) for i in range(4)] == ["0/00.png", "0/05.png", "1/10.png", "1/15.png"]
    assert next(iter(loader)).label.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_views_stand_beside_their_image_and_missing_ones_hold_the_image(images, tmp_path, cache_bytes):
    views = tmp_path / "views"
    for i in range(15):
        for k in range(2 if i < 8 else 1):
            _write_view(views, f"{i // 10}/{i:02d}.png", k, _colour(i, k))
    loader = FolderLoader(images, batch_size=20, size=8, views=views, views_per_image=2, cache_bytes=cache_bytes)
    assert loader.missing_views == 7 + 2 * 5
    for epoch in (0, 1):
        batch = next(loader.epoch(epoch))
        assert batch.views.shape == (20, 2, 3, 8, 8)
        for row, i in enumerate(batch.index.tolist()):
            assert batch.view_exists[row].tolist() == [i < 15, i < 8]
            for k in (0, 1):
                there = bool(batch.view_exists[row, k])
                assert batch.views[row, k, :, 3, 3].tolist() == list(_colour(i, k if there else -1))
                assert batch.sizes[row, 1 + k].tolist() == ([8, 8] if there else [10 + i, 12])
    assert not loader.failures


def test_many_views_take_turns(images, tmp_path):
    for i in range(20):
        for k in range(3):
            _write_view(tmp_path / "views", f"{i // 10}/{i:02d}.png", k, _colour(i, k))
    loader = FolderLoader(images, batch_size=20, size=8, views=tmp_path / "views")
    seen = [(next(loader.epoch(epoch)).views[:, 0, 1, 0, 0] // 40 - 1).unique().tolist() for epoch in range(4)]
    assert seen == [[0], [1], [2], [0]]


@pytest.mark.parametrize("cache_bytes", [0, 10**6])
def test_interpolated_views_come_with_their_partner_and_weight(images, tmp_path, cache_bytes):
    views = tmp_path / "views"
    for i in range(10):
        key = f"{i // 10}/{i:02d}.png"
        _write_view(views, key, 0, _colour(i, 0))
        partner = "gone/0.png" if i == 9 else f"1/{i + 10:02d}.png"
        _write_view(views, key, 1, _colour(i, 1), partner_key=partner, alpha=0.25 + 0.05 * i)
    loader = FolderLoader(images, batch_size=20, size=8, views=views, interpolated=views, cache_bytes=cache_bytes)
    for epoch in (0, 1):
        batch = next(loader.epoch(epoch))
        assert batch.mixed is not None
        for row, i in enumerate(batch.index.tolist()):
            there = i < 9
            assert batch.view_exists[row, 0] == (i < 10)
            assert batch.mixed.exists[row] == there
            assert batch.mixed.alpha[row].item() == pytest.approx(0.25 + 0.05 * i if there else 1.0)
            assert batch.mixed.interpolated[row, :, 0, 0].tolist() == list(_colour(i, 1 if there else -1))
            assert batch.mixed.partner[row, :, 0, 0].tolist() == list(_colour(i + 10 if there else i))
            own = [10 + i, 12]
            assert batch.mixed.sizes[row].tolist() == ([[8, 8], [20 + i, 12]] if there else [own, own])
    assert len(loader.failures) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_listed_and_replaced(images, tmp_path, workers):
    for i in range(20):
        _write_view(tmp_path / "views", f"{i // 10}/{i:02d}.png", 0, _colour(i, 0))
    (images / "0/03.png").write_bytes(b"not an image")
    (images / "1/19.png").write_bytes((images / "1/18.png").read_bytes()[:60])
    (tmp_path / "views" / "0/05.png.0.png").unlink()
    loader = FolderLoader(images, batch_size=10, size=8, views=tmp_path / "views", workers=workers)
    for epoch in (0, 1):
        seen = []
        for batch in loader.epoch(epoch):
            assert batch.real[:, 0, 0, 0].tolist() == [_colour(i)[0] for i in batch.index.tolist()]
            assert batch.view_exists[:, 0].tolist() == [i != 5 for i in batch.index.tolist()]
            seen += batch.index.tolist()
        assert sorted(seen) == sorted([i for i in range(20) if i not in (3, 19)] + [4, 0])
    assert set(loader.failures) == {
        str(images / "0/03.png"),
        str(images / "1/19.png"),
        str(tmp_path / "views" / "0/05.png.0.png"),
    }
    assert loader.failures[str(images / "0/03.png")] == "not an image of a known format"


def test_a_folder_of_broken_images_ends_with_a_reason(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of the 3 images"):
        next(iter(FolderLoader(tmp_path, batch_size=2, size=8)))


def test_the_cache_decodes_each_image_once(images):
    loader = FolderLoader(images, batch_size=10, size=8, cache_bytes=10**6)
    first = list(loader.epoch(0))
    for i in range(20):
        (images / loader.index.key(i)).unlink()
    assert all(map(_same, loader.epoch(0), first))
    assert not loader.failures


def test_a_batch_moves_as_one(images):
    batch = next(iter(FolderLoader(images, batch_size=4, size=8))).to("meta")
    assert batch.real.device.type == batch.sizes.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"batch_size": 21}, "20 images do not fill one step of 21"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank of 0 to 1, got 2"),
        ({"batch_size": 4, "resize": 9}, "center"),
        ({"batch_size": 4, "limit": 0}, "limit of at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        FolderLoader(images, size=8, **options)


def test_views_of_other_images_are_refused(images, tmp_path):
    _write_view(tmp_path / "views", "other.png", 0, (1, 2, 3))
    with pytest.raises(ValueError, match="do not match"):
        FolderLoader(images, batch_size=4, size=8, views=tmp_path / "views")


def test_a_start_beyond_the_epoch_is_refused(images):
    with pytest.raises(ValueError, match="0 to 5, got 6"):
        FolderLoader(images, batch_size=4, size=8).epoch(0, 6)


def test_images_are_channels_last_in_memory(images):
    batch = next(iter(FolderLoader(images, batch_size=4, size=8)))
    assert batch.real.is_contiguous(memory_format=torch.channels_last)
