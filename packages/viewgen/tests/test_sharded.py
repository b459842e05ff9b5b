"""Images in tars and Parquet files give the same views as the same images in a folder."""

import json
import pickle
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from viewgen import (
    Embeddings,
    UnreadableImage,
    contact_sheet,
    embed_images,
    estimate_run,
    generate_views,
    list_images,
    merge_journals,
)
from viewgen.cli import run
from viewgen.sharded import open_images


def as_tars(images, out, count):
    """Distribute images over tars, neither sorted nor contiguous."""
    out.mkdir()
    keys = list_images(images)
    for number in range(count):
        with tarfile.open(out / f"{number:05d}.tar", "w") as tar:
            for key in reversed(keys[number::count]):
                tar.add(images / key, key)
    return out


def as_parquet(images, out, count):
    out.mkdir()
    keys = list_images(images)
    for number in range(count):
        rows = [{"bytes": (images / key).read_bytes(), "path": key} for key in keys[number::count]]
        pq.write_table(pa.table({"image": rows}), out / f"{number}.parquet", row_group_size=3)
    return out


def in_memory(images, out, count):
    store = fsspec.filesystem("memory")
    for shard in as_tars(images, out, count).iterdir():
        store.pipe(f"/{out.parent.name}/{shard.name}", shard.read_bytes())
    return f"memory://{out.parent.name}/*.tar"


def bytes_of(views):
    merge_journals(views)
    return {
        path.relative_to(views).as_posix(): path.read_bytes()
        for path in [*views.rglob("*.png"), views / "manifest.parquet"]
    }


LAYOUTS = {"tars": as_tars, "parquet": as_parquet, "store": in_memory}


class Blended:
    """The image with noise of the seed."""

    name, model_id, supervision, licence, model_hash = "blended", "", "none", "CC0", "abc"

    def condition(self, images):
        return images.float()

    def generate(self, condition, *, seeds, strength=None):
        draws = [torch.randn(condition.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (condition + 30 * torch.stack(draws)).clamp(0, 255).byte()


@pytest.fixture(scope="module")
def from_folder(images, tmp_path_factory):
    views = tmp_path_factory.mktemp("from-folder")
    generate_views(images, views, Blended(), views_per_image=2, batch_size=5)
    return bytes_of(views)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_views_and_manifest_as_from_a_folder(images, from_folder, tmp_path, layout):
    source = LAYOUTS[layout](images, tmp_path / "shards", 3)
    views = tmp_path / "views"
    for shard in (1, 0):
        summary = generate_views(source, views, Blended(), views_per_image=2, batch_size=5, shard=(shard, 2), workers=2)
        assert summary.failed == 0
    assert bytes_of(views) == from_folder
    assert not list(views.glob(".plan*"))


def test_what_is_refused_or_broken_is_recorded_and_the_rest_made(images, tmp_path):
    shards = as_tars(images, tmp_path / "shards", 2)
    link, broken = tarfile.TarInfo("link.png"), tarfile.TarInfo("broken.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(shards / "x.tar", "w") as tar:
        tar.addfile(link)
        tar.addfile(broken)
        tar.add(next(images.rglob("*.png")), "../outside.png")
    summary = generate_views(shards, tmp_path / "views", Blended(), batch_size=5)
    assert (summary.written, summary.failed) == (14, 1)
    failures = [json.loads(line) for line in (tmp_path / "views" / "failures.jsonl").read_text().splitlines()]
    assert {failure["key"].rpartition(": ")[2] for failure in failures} == {"link.png", "broken.png", "../outside.png"}
    assert not (tmp_path / "outside.png.0.png").exists()


def test_a_key_in_two_shards_is_an_error(images, tmp_path):
    shards = as_tars(images, tmp_path / "shards", 1)
    (shards / "copy.tar").write_bytes((shards / "00000.tar").read_bytes())
    with pytest.raises(ValueError, match=r"expected each key once, got .* in .*00000\.tar and in .*copy\.tar"):
        generate_views(shards, tmp_path / "views", Blended())


def test_embeddings_estimates_and_sheets_read_shards(images, embeddings, wrapped, tmp_path):
    shards = as_tars(images, tmp_path / "shards", 2)
    embedded = embed_images(shards, tmp_path / "embedded", wrapped, batch_size=5)
    assert isinstance(embedded, Embeddings) and embedded.keys == embeddings.keys
    assert (embedded.vectors == embeddings.vectors).all()
    assert estimate_run(shards, Blended(), batches=1, batch_size=2).images == 14
    generate_views(images, tmp_path / "views", Blended())
    merge_journals(tmp_path / "views")
    sheet = contact_sheet(images, tmp_path / "views", tmp_path / "sheet.png").read_bytes()
    url = in_memory(images, tmp_path / "more", 2)  # the command line keeps a URL as it is
    assert run(["show", url, str(tmp_path / "views"), "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == sheet


def test_other_processes_open_the_index(images, tmp_path):
    shards = as_parquet(images, tmp_path / "shards", 2)
    with open_images(shards) as opened:
        copy = pickle.loads(pickle.dumps(opened))
        assert {key: copy.read(key) for key in copy.keys} == {
            key: (images / key).read_bytes() for key in list_images(images)
        }
        with pytest.raises(UnreadableImage, match=r"there is no image 'x\.png'"):
            copy.read("x.png")
