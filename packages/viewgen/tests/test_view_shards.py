"""Views in shards hold the views of a folder, whatever interrupts their making."""

import tarfile

import fsspec
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from genviews_core.shards import ShardError
from viewgen import (
    GeneratorSpec,
    ShardStore,
    generate_shards,
    generate_views,
    list_images,
    merge_journals,
    verify_shards,
)
from viewgen.cli import run


class Blended:
    """The image with noise of the seed; ends the process after some batches."""

    name, model_id, supervision, licence, model_hash = "blended", "", "none", "CC0", "abc"

    def __init__(self, stop_after=None):
        self.left = stop_after

    def condition(self, images):
        return images.float()

    def generate(self, condition, *, seeds, strength=None):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        draws = [torch.randn(condition.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (condition + 30 * torch.stack(draws)).clamp(0, 255).byte()


OPTIONS = {"views_per_image": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def shards(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    for number in range(3):
        with tarfile.open(out / f"{number:05d}.tar", "w") as tar:
            for key in list_images(images)[number::3]:
                tar.add(images / key, key)
    return out


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    summary = generate_shards(shards, out, Blended(), **OPTIONS)
    assert (summary.wanted, summary.written, summary.already, summary.failed) == (28, 28, 0, 0)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_and_views_are_those_of_a_folder(images, shards, undisturbed, tmp_path):
    generate_views(images, tmp_path, Blended(), **OPTIONS)
    merge_journals(tmp_path)
    assert sorted(contents(undisturbed)) == [
        "settings.json",
        *(f"views-{number:06d}.{kind}" for number in range(3) for kind in ("parquet", "tar")),
    ]
    rows = []
    for number in range(3):
        own = pq.read_table(undisturbed / f"views-{number:06d}.parquet").to_pylist()
        with tarfile.open(undisturbed / f"views-{number:06d}.tar") as tar:
            assert tar.getnames() == [row["path"] for row in own]
            for member in tar:
                assert tar.extractfile(member).read() == (tmp_path / member.name).read_bytes()
        rows += own
    rows.sort(key=lambda row: (row["key"], row["k"]))
    assert rows == pq.read_table(tmp_path / "manifest.parquet").to_pylist()


def test_kills_resumption_and_other_workers_give_the_same_files(shards, undisturbed, tmp_path):
    for batches in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            generate_shards(shards, tmp_path, Blended(stop_after=batches), **OPTIONS)
        assert set(ShardStore(tmp_path).names()) <= {"views-000000", "views-000001"}
    for shard in (1, 0):
        generate_shards(shards, tmp_path, Blended(), shard=(shard, 2), workers=2, **OPTIONS)
    assert contents(tmp_path) == contents(undisturbed)
    summary = generate_shards(shards, tmp_path, Blended(stop_after=0), **OPTIONS)
    assert (summary.written, summary.already) == (0, 28)


def test_a_store_holds_the_same_files_and_is_verified_indexed_and_shown(shards, undisturbed, tmp_path, capsys):
    store = fsspec.filesystem("memory")
    url = f"memory://{tmp_path.name}"
    generate_shards(shards, url, Blended(), **OPTIONS)
    found = {path.rpartition("/")[2]: store.cat_file(path) for path in store.ls(f"/{tmp_path.name}", detail=False)}
    assert found == contents(undisturbed)
    assert run(["verify", url, "--check-bytes"]) == 0
    assert "28 views" in capsys.readouterr().out
    assert run(["show", str(shards), url, "--out", str(tmp_path / "sheet.png"), "--count", "3"]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert run(["index", url]) == 0
    rows = pyarrow.dataset.parquet_dataset(f"{tmp_path.name}/_metadata", filesystem=store).count_rows()
    assert rows == 28


def test_damage_is_found_repaired_and_made_again(shards, undisturbed, tmp_path):
    generate_shards(shards, tmp_path, Blended(), **OPTIONS)
    whole = (tmp_path / "views-000001.tar").read_bytes()
    (tmp_path / "views-000001.tar").write_bytes(whole[:-1] + b"x")
    (tmp_path / "views-000002.tar").unlink()
    (tmp_path / "views-000007.tar").write_bytes(b"no manifest")
    assert verify_shards(tmp_path).damaged == []
    report = verify_shards(tmp_path, True, check_bytes=True)
    assert (report.damaged, report.rows_without_file) == (["views-000001.tar"], ["views-000002.tar"])
    assert report.files_without_row == ["views-000007.tar"]
    assert ShardStore(tmp_path).names() == ["views-000000"]
    generate_shards(shards, tmp_path, Blended(), **OPTIONS)
    assert contents(tmp_path) == contents(undisturbed)


def test_other_settings_and_other_shards_are_refused(shards, undisturbed, tmp_path):
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        generate_shards(shards, undisturbed, Blended(), seed=1, **OPTIONS)
    (tmp_path / "0.tar").write_bytes((shards / "00000.tar").read_bytes())
    with pytest.raises(ValueError, match=r"has views of .*00000\.tar, not of .*0\.tar"):
        generate_shards(tmp_path, undisturbed, Blended(), **OPTIONS)


def test_the_command_line_makes_the_same_shards(shards, undisturbed, tmp_path, monkeypatch, capsys):
    class Spec(GeneratorSpec):
        def load(self, device):
            return Blended()

    monkeypatch.setattr("viewgen.cli._spec", lambda command: Spec("retrieval"))
    options = ["--generator", "retrieval", "--pool", "unused", "--pool-images", "unused", "--devices", "cpu"]
    command = ["generate", str(shards), "--out", str(tmp_path), "--shards", *options]
    assert run([*command, "--views-per-image", "2", "--batch-size", "4"]) == 0
    assert "28 views written, 0 already there, 0 failed" in capsys.readouterr().out
    assert contents(tmp_path) == contents(undisturbed)


def test_places_that_do_not_fit_are_refused(shards, tmp_path):
    with pytest.raises(ValueError, match="expected another place"):
        generate_shards(shards, shards, Blended(), **OPTIONS)
    with pytest.raises(ValueError, match="give --shards"):
        generate_views(shards, "memory://views", Blended())
    with pytest.raises(KeyboardInterrupt):
        generate_shards(shards, tmp_path, Blended(stop_after=1), **OPTIONS)
    with pytest.raises(ValueError, match="views_per_image was 2, now 1"):
        generate_shards(shards, tmp_path, Blended(), views_per_image=1)


def test_a_store_that_refuses_an_object_ends_in_one_line_and_nothing_half(shards, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def full(self, path, value, **options):
        raise OSError("bucket full")

    monkeypatch.setattr(MemoryFileSystem, "put_file", full)
    with pytest.raises(ShardError, match=r"cannot write memory://.*views-000000\.tar: bucket full; run again") as error:
        generate_shards(shards, f"memory://{tmp_path.name}", Blended(), **OPTIONS)
    assert "\n" not in str(error.value)
    assert ShardStore(f"memory://{tmp_path.name}").names() == []
