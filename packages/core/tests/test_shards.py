import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genviews_core.shards import ShardError, ShardReader, find_shards, is_sharded, list_shard

SAMPLES = {"cat/1.jpg": b"one", "cat/2.b.jpg": b"two2", "top.png": b"3"}


def write_tar(path, members):
    """Write (name or TarInfo, bytes) pairs."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg() and not isinstance(name, tarfile.TarInfo):
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def read_all(shard, refused=None):
    reader, refused = ShardReader(), {} if refused is None else refused
    return {entry.key: reader.read(str(shard), entry) for entry in list_shard(str(shard), refused.__setitem__)}


def test_a_tar_has_the_keys_of_its_folder(tmp_path):
    others = [("./cat/1.txt", b"label"), ("._top.png", b"mac"), ("cat/1.pkl", b"\x80never read"), ("cat/1.json", b"{}")]
    images = [(f"./{key}", data) for key, data in SAMPLES.items()]
    assert read_all(write_tar(tmp_path / "a.tar", [*images, *others])) == SAMPLES


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"image": [{"bytes": data, "path": key} for key, data in SAMPLES.items()]}, list(SAMPLES)),
        ({"image": [{"bytes": data, "path": None} for data in SAMPLES.values()]}, [f"p/{row:08d}" for row in range(3)]),
        ({"key": ["0", "1", "2"], "jpg": list(SAMPLES.values()), "caption": list("abc")}, ["0.jpg", "1.jpg", "2.jpg"]),
        ({"file_name": list(SAMPLES), "image": list(SAMPLES.values())}, list(SAMPLES)),
    ],
    ids=["huggingface", "without paths", "img2dataset", "file names"],
)
def test_parquet_layouts(tmp_path, columns, expected):
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=2)
    assert read_all(tmp_path / "p.parquet") == dict(zip(expected, SAMPLES.values(), strict=True))


def test_shards_are_found_in_folders_patterns_and_stores(tmp_path):
    import fsspec

    for name in ("b.tar", "a.tar", "a.parquet", ".hidden.tar", "stats.json"):
        (tmp_path / name).touch()
    found = [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]
    assert find_shards(tmp_path) == found == find_shards(f"{tmp_path}/*.tar")
    assert find_shards(tmp_path / "a.parquet") == [str(tmp_path / "a.parquet")]
    assert is_sharded(tmp_path) and is_sharded("s3://bucket/x") and is_sharded(tmp_path / "a.tar")
    (tmp_path / "image.png").touch()
    assert not is_sharded(tmp_path)
    store = fsspec.filesystem("memory")
    store.pipe("/found/x.tar", write_tar(tmp_path / "x.tar", SAMPLES.items()).read_bytes())
    assert find_shards("memory://found") == ["memory:///found/x.tar"] == find_shards("memory://found/*.tar")
    assert read_all("memory:///found/x.tar") == SAMPLES
    for nothing in (tmp_path / "none", "memory://nowhere", "no-such-store://x"):
        with pytest.raises(ShardError, match=r"expected \.tar|cannot read") as error:
            find_shards(nothing)
        assert "\n" not in str(error.value)


def test_hostile_members_are_refused_and_the_others_read(tmp_path):
    members = [("../up.png", b"x"), ("/etc/root.png", b"x"), ("a/../../b.png", b"x"), ("caf\udce9.png", b"x")]
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        member = tarfile.TarInfo(f"special{number}.png")
        member.type, member.linkname = kind, "/etc/passwd"
        members.append((member, b""))
    sparse = tarfile.TarInfo("sparse.png")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(100 << 30)}
    sparse.size = 512
    members.append((sparse, b"0\n".ljust(512, b"\0")))
    refused = {}
    shard = write_tar(tmp_path / "hostile.tar", [*members, *SAMPLES.items()])
    assert read_all(shard, refused) == SAMPLES
    assert len(refused) == len(members)
    assert all(reason.isprintable() for reason in refused.values())


def test_a_member_that_claims_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("genviews_core.shards.MAX_IMAGE_BYTES", 3)
    refused = {}
    assert "cat/2.b.jpg" not in read_all(write_tar(tmp_path / "a.tar", SAMPLES.items()), refused)
    assert refused == {"cat/2.b.jpg": "expected at most 3 bytes, got 4"}


@pytest.mark.parametrize("end", [300, 512, 700, 1024, 2 * 1024])
def test_a_tar_that_is_cut_off_anywhere_is_an_error(tmp_path, end):
    whole = write_tar(tmp_path / "a.tar", [(f"{name}.png", bytes(512)) for name in "abcd"]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:end])
    with pytest.raises(ShardError, match=r"cannot read .*cut\.tar"):
        read_all(tmp_path / "cut.tar")


def test_files_of_other_kinds_are_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "zip.tar").write_bytes(b"PK\3\4" + bytes(2000))
    (tmp_path / "text.parquet").write_text("not Parquet")
    pq.write_table(pa.table({"label": [1, 2]}), tmp_path / "labels.parquet")
    pq.write_table(pa.table({"image": [b"x" * 100]}), tmp_path / "large.parquet")
    monkeypatch.setattr("genviews_core.shards.MAX_GROUP_BYTES", 50)
    for name, reason in (("zip.tar", ""), ("text.parquet", ""), ("labels.parquet", "label"), ("large.parquet", "50")):
        with pytest.raises(ShardError, match=f"cannot read .*{name}.*{reason}") as error:
            read_all(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_row_without_an_image_says_so(tmp_path):
    pq.write_table(pa.table({"key": ["0", "1"], "jpg": [b"x", None]}), tmp_path / "a.parquet")
    with pytest.raises(ShardError, match=r"no image in the row of '1\.jpg'"):
        read_all(tmp_path / "a.parquet")
