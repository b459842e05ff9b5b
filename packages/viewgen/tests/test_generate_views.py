import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from genviews_core.files import WriteError
from viewgen import (
    AdaptiveStrength,
    ForegroundRatios,
    Generator,
    Interpolation,
    generate_views,
    list_images,
    merge_journals,
    noise_level,
    read_image,
    slerp,
    verify_views,
    view_seed,
)
from viewgen.interpolate import draw_alpha, random_partner


class Noisy:
    """The source plus noise of the view's seed, scaled by strength; counts its calls."""

    name, model_id, supervision, licence, model_hash = "noisy", "noisy-1", "none", "CC0", "abc"

    def __init__(self, stop_after=None):
        self.calls, self.stop_after, self.seen = 0, stop_after, []

    def condition(self, images):
        return images.float()

    def generate(self, condition, *, seeds, strength=None):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.seen.append(condition)
        shape = condition.shape[1:] if condition.ndim == 4 else (3, 8, 8)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        noise = noise * (30 if strength is None else strength.view(-1, 1, 1, 1))
        base = condition if condition.ndim == 4 else condition.mean(dim=1).view(-1, 1, 1, 1) + 128
        return (base + noise).clamp(0, 255).byte()


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    generate_views(images, root, Noisy(), views_per_image=3, batch_size=5)
    merge_journals(root)
    return root


def test_every_view_is_there_once_with_a_true_row(images, undisturbed):
    assert isinstance(Noisy(), Generator)
    rows = pq.read_table(undisturbed / "manifest.parquet").to_pylist()
    expected = [(key, k) for key in list_images(images) for k in range(3)]
    assert [(row["key"], row["k"]) for row in rows] == expected
    assert {row["path"] for row in rows} == set(files_of(undisturbed))
    for row in rows:
        assert row["path"] == f"{row['key']}.{row['k']}.png"
        assert row["seed"] == view_seed(0, row["key"], row["k"])
        assert (row["generator"], row["model"], row["model_hash"]) == ("noisy", "noisy-1", "abc")
        assert (row["supervision"], row["licence"], row["strength"], row["alpha"]) == ("none", "CC0", None, None)
        assert (row["height"], row["width"]) == tuple(read_image(undisturbed / row["path"]).shape[1:])
    assert verify_views(undisturbed, check_bytes=True).clean


def test_a_view_depends_on_its_source_and_seed_alone(images, undisturbed, tmp_path):
    generate_views(images, tmp_path, Noisy(), views_per_image=3, batch_size=64, workers=3)
    assert files_of(tmp_path) == files_of(undisturbed)
    row = pq.read_table(undisturbed / "manifest.parquet").to_pylist()[7]
    condition = read_image(images / row["key"]).float()[None]
    expected = Noisy().generate(condition, seeds=[row["seed"]])[0]
    assert torch.equal(read_image(undisturbed / row["path"]), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_make_the_same_files_and_the_same_manifest(images, undisturbed, tmp_path, count):
    summaries = [
        generate_views(images, tmp_path, Noisy(), views_per_image=3, batch_size=5, shard=(index, count))
        for index in reversed(range(count))
    ]
    assert sum(summary.written for summary in summaries) == 42
    assert files_of(tmp_path) == files_of(undisturbed)
    assert merge_journals(tmp_path).read_bytes() == (undisturbed / "manifest.parquet").read_bytes()


def test_an_interrupted_run_goes_on(images, undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        generate_views(images, tmp_path, Noisy(stop_after=4), views_per_image=3, batch_size=5)
    done = []
    second = Noisy()
    summary = generate_views(
        images, tmp_path, second, views_per_image=3, batch_size=5, on_progress=lambda *counts: done.append(counts)
    )
    assert (summary.wanted, summary.written, summary.already, summary.failed) == (42, 22, 20, 0)
    assert second.calls == 5
    assert done[-1] == (42, 42)
    assert files_of(tmp_path) == files_of(undisturbed)
    assert merge_journals(tmp_path).read_bytes() == (undisturbed / "manifest.parquet").read_bytes()


def test_the_disk_is_checked_by_the_first_views(images, tmp_path, monkeypatch):
    said, usage = [], namedtuple("usage", "total used free")
    generate_views(images, tmp_path / "enough", Noisy(), views_per_image=3, batch_size=5, on_message=said.append)
    assert len(said) == 1 and said[0].startswith("37 more views: about 148 KiB of disk, ")  # 4 KiB each
    monkeypatch.setattr("genviews_core.disk.shutil.disk_usage", lambda path: usage(0, 0, 10_000))
    with pytest.raises(
        ValueError, match=r"expected 148 KiB of free disk for 37 more views in .*, got 9.8 KiB; free some"
    ):
        generate_views(images, tmp_path / "full", Noisy(), views_per_image=3, batch_size=5)
    assert len(files_of(tmp_path / "full")) == 5


def test_rows_and_files_without_each_other_are_made_again(images, undisturbed, tmp_path):
    views = tmp_path / "views"
    shutil.copytree(undisturbed, views)
    journal = views / "journals" / "00000-of-00001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:30]) + lines[30][:40])  # 12 rows lost, one of them torn
    (views / json.loads(lines[3])["path"]).unlink()
    report = verify_views(views)
    assert len(report.files_without_row) == 12
    assert report.rows_without_file == [json.loads(lines[3])["path"]]
    assert generate_views(images, views, Noisy(), views_per_image=3, batch_size=5).written == 13
    assert verify_views(views, check_bytes=True).clean
    assert merge_journals(views).read_bytes() == (undisturbed / "manifest.parquet").read_bytes()


def test_repair_removes_what_is_wrong_and_the_next_run_makes_it(images, undisturbed, tmp_path):
    views = tmp_path / "views"
    shutil.copytree(undisturbed, views)
    paths = sorted(files_of(views))
    (views / paths[0]).unlink()
    (views / paths[5]).write_bytes(b"damaged")
    (views / "even/stranger.jpg.0.png").write_bytes(b"no row")
    (views / "notes.txt").write_text("kept")
    report = verify_views(views, repair=True, check_bytes=True)
    assert report.rows_without_file == [paths[0]]
    assert report.damaged == [paths[5]]
    assert report.files_without_row == ["even/stranger.jpg.0.png"]
    assert verify_views(views, check_bytes=True).clean
    assert (views / "notes.txt").exists()
    assert generate_views(images, views, Noisy(), views_per_image=3, batch_size=5).written == 2
    assert files_of(views) == files_of(undisturbed)


def test_unreadable_sources_are_counted_and_cost_nothing_again(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images/even/000.png").write_bytes(b"broken")
    for _ in range(2):
        generator = Noisy()
        summary = generate_views(tmp_path / "images", tmp_path / "views", generator, views_per_image=2, batch_size=5)
        assert (summary.wanted, summary.failed) == (28, 2)
    assert generator.calls == 0
    lines = (tmp_path / "views/failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["even/000.png"]
    shutil.copy(images / "even/000.png", tmp_path / "images/even/000.png")
    assert generate_views(tmp_path / "images", tmp_path / "views", Noisy(), views_per_image=2).written == 2


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_a_view_name_that_is_too_long_is_a_failure_and_the_rest_is_generated(images, undisturbed, tmp_path, letter):
    """The longest allowed name gets views; one byte more, in the same folder, is a line in failures.jsonl."""
    root = shutil.copytree(images, tmp_path / "images")
    names = [letter * ((251 - extra) // len(letter.encode())) for extra in (6, 0)]
    names = [
        name + "y" * (251 - extra - len(name.encode())) + ".png" for name, extra in zip(names, (6, 0), strict=True)
    ]
    for name in names:
        shutil.copy(images / "even/000.png", root / "even" / name)
    for again in range(2):
        summary = generate_views(root, tmp_path / "views", Noisy(), views_per_image=3, batch_size=5)
        assert (summary.written, summary.already, summary.failed) == ((45, 0, 3), (0, 45, 3))[again]
    (failure,) = map(json.loads, (tmp_path / "views/failures.jsonl").read_text().splitlines())
    assert failure["key"] == f"even/{names[1]}" and "too long" in failure["error"]
    made = files_of(tmp_path / "views")
    assert f"even/{names[0]}.2.png" in made
    assert {name: data for name, data in made.items() if name in files_of(undisturbed)} == files_of(undisturbed)


def test_images_of_many_sizes(images, write_images, tmp_path):
    write_images(tmp_path / "images", 3, side=16)
    write_images(tmp_path / "more", 2, side=24)
    shutil.copytree(tmp_path / "more", tmp_path / "images/more")
    with pytest.raises(ValueError, match="set the generator's input_size"):
        generate_views(tmp_path / "images", tmp_path / "views", Noisy())
    sized = Noisy()
    sized.input_size = 20
    assert generate_views(tmp_path / "images", tmp_path / "views", sized).written == 5
    assert {row["width"] for row in pq.read_table(merge_journals(tmp_path / "views")).to_pylist()} == {20}


def test_jpg_and_strength_per_image(images, tmp_path):
    strength = {key: float(index) for index, key in enumerate(list_images(images))}
    generate_views(images, tmp_path, Noisy(), strength=strength, image_format="jpg")
    rows = pq.read_table(merge_journals(tmp_path)).to_pylist()
    assert {row["key"]: row["strength"] for row in rows} == strength
    assert all(row["path"].endswith(".0.jpg") for row in rows)
    quiet = read_image(tmp_path / rows[0]["path"]).int() - read_image(images / rows[0]["key"]).int()
    assert quiet.abs().float().mean() < 8
    with pytest.raises(ValueError, match="expected a strength for every image"):
        generate_views(images, tmp_path / "lacking", Noisy(), strength={"x": 1.0})


def test_interpolated_views(images, embeddings, tmp_path):
    law, generator = Interpolation(alpha=(0.2, 0.8), from_k=1), Noisy()
    generate_views(images, tmp_path, generator, embeddings=embeddings, interpolate=law, views_per_image=2)
    rows = pq.read_table(merge_journals(tmp_path)).to_pylist()
    vectors = torch.from_numpy(embeddings.vectors.astype("float32"))
    for row, condition in zip(rows, generator.seen[0][: len(rows)], strict=True):  # the rest fills the batch up
        own = embeddings.keys.row(row["key"])
        if row["k"] == 0:
            assert (row["partner_key"], row["alpha"]) == (None, None)
            assert torch.equal(condition, vectors[own])
        else:
            other = random_partner(row["seed"], own, len(embeddings))
            assert row["partner_key"] == embeddings.keys[other] != row["key"]
            assert row["alpha"] == draw_alpha(row["seed"], law)
            alpha = torch.tensor([row["alpha"]], dtype=torch.float64)
            assert torch.allclose(condition, slerp(vectors[own : own + 1], vectors[other : other + 1], alpha)[0])


def test_other_settings_are_refused_by_name(images, undisturbed):
    louder = Noisy()
    louder.model_hash = "def"
    with pytest.raises(ValueError, match="model_hash was abc, now def; seed was 0, now 1"):
        generate_views(images, undisturbed, louder, seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolate": Interpolation()}, "expected embeddings="),
        ({"shard": (2, 2)}, "shard"),
        ({"engine": "remote"}, "expected engine local or ray"),
        ({"image_format": "bmp"}, "image_format"),
        ({"batch_size": 0}, "expected batch_size of 1 or more, got 0"),
        ({"views_per_image": 0}, "views_per_image of 1"),
        ({"workers": -1}, "workers of 0"),
    ],
)
def test_wrong_arguments_are_refused(images, tmp_path, options, message):
    arguments = {"images_root": images, "views_root": tmp_path, "generator": Noisy()}
    with pytest.raises(ValueError, match=message):
        generate_views(**arguments, **options)


def test_views_and_images_must_lie_apart(images):
    for views in (images, images / "views", images.parent):
        with pytest.raises(ValueError, match="separate folders"):
            generate_views(images, views, Noisy())


def test_one_shard_cannot_be_written_by_two_processes(images, tmp_path):
    from viewgen.manifest import Journal

    with (
        Journal(tmp_path / "journals/00000-of-00001.jsonl"),
        pytest.raises(ValueError, match="jsonl is being written by"),
    ):
        generate_views(images, tmp_path, Noisy())


def test_a_full_disk_stops_the_run_with_one_line_and_nothing_is_lost(images, undisturbed, tmp_path, monkeypatch):
    written, write = [], Path.write_bytes

    def fill_up(path: Path, data: bytes) -> int:
        if path.parent.name != "journals":
            return write(path, data)
        if len(written) == 7:
            return write(Path("/dev/full"), data)
        written.append(path)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(WriteError, match=r"the disk is full; free some space and run again"):
        generate_views(images, tmp_path, Noisy(), views_per_image=3, batch_size=5)
    monkeypatch.undo()
    assert len(files_of(tmp_path)) == 7
    generate_views(images, tmp_path, Noisy(), views_per_image=3, batch_size=5)
    assert files_of(tmp_path) == files_of(undisturbed)
    assert merge_journals(tmp_path).read_bytes() == (undisturbed / "manifest.parquet").read_bytes()


def test_a_full_disk_before_the_first_view_is_a_one_line_error(images, tmp_path, monkeypatch):
    def full(path, array):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("viewgen.run.plan.np.save", full)
    with pytest.raises(WriteError, match="the disk is full; free some space and run again"):
        generate_views(images, tmp_path, Noisy())
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "00000-of-00001.jsonl",
        "failures.jsonl",
    ]


def test_an_output_that_cannot_be_written_is_told_in_one_line(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="a file exists where a folder is needed"):
        generate_views(images, tmp_path / "file" / "views", Noisy())


def test_a_bad_source_changes_no_other_view(images, tmp_path):
    """Every batch has one size, and every image its place in it, whatever else can be read."""

    class Batchwise(Noisy):
        input_size = 16

        def condition(self, images):
            return super().condition(images) + torch.arange(len(images)).view(-1, 1, 1, 1) + 10 * len(images)

        def generate(self, condition, *, seeds, strength=None):
            places = torch.arange(len(condition)).view(-1, 1, 1, 1) + 10 * len(condition)
            return super().generate(condition + places, seeds=seeds, strength=strength)

    shutil.copytree(images, tmp_path / "images")
    for number, views in enumerate(("whole", "lacking")):
        if number:
            (tmp_path / "images/even/002.png").write_bytes(b"broken")
        generate_views(tmp_path / "images", tmp_path / views, Batchwise(), views_per_image=2, batch_size=5)
    whole, lacking = files_of(tmp_path / "whole"), files_of(tmp_path / "lacking")
    assert whole.keys() - lacking.keys() == {"even/002.png.0.png", "even/002.png.1.png"}
    assert all(whole[name] == data for name, data in lacking.items())


def test_prepared_images_of_any_size(images, write_images, tmp_path):
    class Prepared(Noisy):
        def prepare(self, image):
            return image[:, :9, :7].float()

        def encode(self, prepared):
            return prepared

    write_images(tmp_path / "images", 3, side=16)
    write_images(tmp_path / "images/more", 2, side=24)
    assert generate_views(tmp_path / "images", tmp_path / "views", Prepared(), workers=2).written == 5
    assert {row["width"] for row in pq.read_table(merge_journals(tmp_path / "views")).to_pylist()} == {7}


def test_keys_and_partners_of_generators_that_know_them(images, tmp_path):
    class Keyed(Noisy):
        def condition_for(self, keys, images):
            return torch.tensor([[float(len(key))] for key in keys])

        def partner_keys(self, condition, seeds):
            return [f"partner-{int(length)}" for length in condition[:, 0]]

    generate_views(images, tmp_path, Keyed(), batch_size=4)
    rows = pq.read_table(merge_journals(tmp_path)).to_pylist()
    assert [row["partner_key"] for row in rows] == [f"partner-{len(row['key'])}" for row in rows]


def test_names_that_no_manifest_can_hold_are_failures(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    odd = {"with space.png", "ünï\ncode 日本.png", "50%.png"}
    for name in odd:
        shutil.copy(images / "even/000.png", tmp_path / "images" / name)
    shutil.copy(images / "even/000.png", bytes(tmp_path / "images") + b"/not-\xff-utf8.png")
    summary = generate_views(tmp_path / "images", tmp_path / "views", Noisy())
    assert (summary.wanted, summary.failed) == (18, 1)
    assert "not UTF-8" in (tmp_path / "views/failures.jsonl").read_text()
    keys = set(pq.read_table(merge_journals(tmp_path / "views")).column("key").to_pylist())
    assert odd < keys
    assert verify_views(tmp_path / "views", check_bytes=True).clean


def test_laws_of_strength_reach_generator_and_manifest(images, tmp_path):
    ratios = tmp_path / "ratios.csv"
    keys = list_images(images)
    ratios.write_text("key,foreground_ratio\n" + "".join(f"{key},{place / 20}\n" for place, key in enumerate(keys)))
    law = AdaptiveStrength(ratios=ForegroundRatios.read(ratios))
    generate_views(images, tmp_path / "views", Noisy(), strength=law, batch_size=5)
    for place, row in enumerate(pq.read_table(merge_journals(tmp_path / "views")).to_pylist()):
        assert row["foreground_ratio"] == place / 20
        assert row["strength"] == noise_level(place / 20)
    with pytest.raises(ValueError, match="strength was"):
        generate_views(images, tmp_path / "views", Noisy(), strength=100.0)
