"""Views in shards, in a folder or any store of fsspec: ``views-000123.tar`` with ``views-000123.parquet`` beside it.

The manifest has the columns of ``SCHEMA``; its metadata names the shard of images and holds size and SHA-256 of the
tar. It is written after the tar, and each file appears whole or not at all, so a shard with a manifest is finished.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from genviews_core.files import make_folder
from genviews_core.shards import ShardError, reading
from viewgen.manifest.table import SCHEMA, Manifest, open_manifest
from viewgen.manifest.verify import VerifyReport

SHARD_NAME = re.compile(r"views-\d{6,}")
ABOUT = b"viewgen.shard"  # the key in the metadata of a manifest


@dataclass(frozen=True, kw_only=True)
class ShardAbout:
    """What a manifest says of its shard: the shard of images, and size and SHA-256 of the tar."""

    source: str
    tar_bytes: int
    tar_sha256: str


class ShardStore:
    """The shards of views in one place.

    Args:
        out: folder or URL; made when something is published.

    Attributes:
        out: as given.
        url_of_folder: absolute path or full URL.
        is_local: whether it is a path.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        import fsspec.core

        self.out = os.fspath(out).rstrip("/")
        self.is_local = "://" not in self.out
        with reading(self.out):
            place = os.path.abspath(self.out) if self.is_local else self.out  # noqa: PTH100
            self._store, self._root = fsspec.core.url_to_fs(place)
        self.url_of_folder = self._root if self.is_local else self._store.unstrip_protocol(self._root)

    def names(self) -> list[str]:
        """Return the sorted names of finished shards, such as "views-000123"."""
        return self._named(".parquet")

    def unlisted_tars(self) -> list[str]:
        """Return the sorted names of tars of views without a manifest: a run was killed, or is at work."""
        return sorted({*self._named(".tar")} - {*self._named(".parquet")})

    def _named(self, suffix: str) -> list[str]:
        with reading(self.out):
            self._store.invalidate_cache()
            found = self._store.ls(self._root, detail=False) if self._store.isdir(self._root) else []
        names = [PurePosixPath(str(path)) for path in found]
        return sorted(path.stem for path in names if path.suffix == suffix and SHARD_NAME.fullmatch(path.stem))

    def finished(self, number: int, source: str) -> int | None:
        """Return the number of views of a finished shard, or None.

        Raises:
            ValueError: it was made from another shard of images, or its manifest is damaged.
        """
        name = shard_name(number)
        with reading(self.url(name, ".parquet")):
            if not self._store.exists(f"{self._root}/{name}.parquet"):
                return None
        with self.manifest(name) as (manifest, about):
            if PurePosixPath(about.source).name != PurePosixPath(source).name:
                raise ValueError(
                    f"{self.url(name, '.tar')} has views of {about.source}, not of {source}: the list of shards has "
                    "changed; choose another place for the views"
                )
            return manifest.file.metadata.num_rows

    def url(self, name: str, suffix: str) -> str:
        """Return the path or URL of a file of a shard."""
        return f"{self.out}/{name}{suffix}"

    @contextlib.contextmanager
    def manifest(self, name: str) -> Iterator[tuple[Manifest, ShardAbout]]:
        """Open the manifest of a shard through a temporary copy.

        Raises:
            ValueError: it is damaged, or not the manifest of a shard.
        """
        with tempfile.TemporaryDirectory(prefix="viewgen-") as folder:
            with reading(self.url(name, ".parquet")):
                self._store.get_file(f"{self._root}/{name}.parquet", f"{folder}/manifest.parquet")
            try:
                manifest = open_manifest(folder)
                about = ShardAbout(**json.loads((manifest.file.schema_arrow.metadata or {})[ABOUT]))
            except (ValueError, KeyError, TypeError) as error:
                raise ShardError(f"{self.url(name, '.parquet')} is damaged: delete it, and generate again") from error
            yield manifest, about

    @contextlib.contextmanager
    def staging(self, number: int) -> Iterator[Path]:
        """Provide a folder for a shard in the making: beside the views, where a killed run continues, or temporary."""
        if not self.is_local:
            with tempfile.TemporaryDirectory(prefix="viewgen-") as folder:
                yield Path(folder)
            return
        place = make_folder(Path(self.out) / f".{shard_name(number)}")
        yield place
        shutil.rmtree(place)

    def check_settings(self, settings: dict[str, Any], *, keep: bool = False) -> None:
        """Compare settings with those of the shards that are here; with ``keep``, the first ones are written.

        Raises:
            ValueError: they differ; the message names them.
        """
        path, settings = f"{self._root}/settings.json", json.loads(json.dumps(settings))
        with reading(f"{self.out}/settings.json"):
            found = json.loads(self._store.cat_file(path)) if self._store.exists(path) else None
        if found is None:
            if keep:
                self._put("settings.json", json.dumps(settings, indent=2).encode())
            return
        differing = [name for name in settings if found.get(name) != settings[name]]
        if differing:
            changes = "; ".join(f"{name} was {found.get(name)}, now {settings[name]}" for name in differing)
            raise ValueError(f"{self.out} already contains views of other settings ({changes}); choose another place")

    def publish(self, number: int, source: str, manifest: Path, tar: Path, failures: bytes) -> None:
        """Write the tar, the list of failures if there are any, and at last the manifest."""
        name, table = shard_name(number), pq.read_table(manifest)
        with tar.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        about = {"source": source, "tar_bytes": tar.stat().st_size, "tar_sha256": digest}
        pq.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), manifest, compression="zstd")
        self._put(f"{name}.tar", tar)
        if failures:
            self._put(f"{name}.failures.jsonl", b"".join(sorted(failures.splitlines(keepends=True))))
        self._put(f"{name}.parquet", manifest)

    def _put(self, name: str, content: Path | bytes) -> None:
        """Write a file; stores make an object appear at once, and a local file is renamed."""
        with writing_to(f"{self.out}/{name}"):
            self._store.makedirs(self._root, exist_ok=True)
            target = f"{self._root}/{name}"
            written = f"{self._root}/.{name}.{os.getpid()}.tmp" if self.is_local else target
            if isinstance(content, bytes):
                self._store.pipe_file(written, content)
            else:
                self._store.put_file(str(content), written)
            if self.is_local:
                Path(written).replace(target)

    def fault(self, name: str, about: ShardAbout, check_bytes: bool) -> str | None:
        """Return how a shard differs from its manifest, or None: "row without file" or "damaged".

        Args:
            name: name of the shard.
            about: metadata of its manifest.
            check_bytes: compare the SHA-256 of the tar, otherwise only its size.
        """
        path = f"{self._root}/{name}.tar"
        with reading(self.url(name, ".tar")):
            if not self._store.exists(path):
                return "row without file"
            if self._store.size(path) != about.tar_bytes:
                return "damaged"
            if check_bytes:
                with self._store.open(path, "rb") as file:
                    digest = sha256()
                    while block := file.read(1 << 20):
                        digest.update(block)
                return None if digest.hexdigest() == about.tar_sha256 else "damaged"
        return None

    def remove(self, name: str, suffix: str) -> None:
        """Delete a file of a shard."""
        with writing_to(self.url(name, suffix)):
            self._store.rm_file(f"{self._root}/{name}{suffix}")

    def write_metadata(self) -> int:
        """Write ``_metadata``, with which the manifests are one Parquet data set; return its number of rows.

        Raises:
            ValueError: there is no finished shard, or a manifest is damaged.
        """
        collected = []
        for name in self.names():
            with self.manifest(name) as (manifest, _):
                about = manifest.file.metadata
                about.set_file_path(f"{name}.parquet")
                collected.append(about)
        if not collected:
            raise ValueError(f"expected shards of views in {self.out}, got none; run `viewgen generate --shards`")
        buffer = BytesIO()
        pq.write_metadata(SCHEMA, buffer, collected)
        self._put("_metadata", buffer.getvalue())
        return sum(about.num_rows for about in collected)


def shard_name(number: int) -> str:
    """Return the name of a shard, "views-000123"."""
    return f"views-{number:06d}"


def holds_shards(views: str | os.PathLike[str]) -> bool:
    """Return whether a folder or URL holds views in shards."""
    return "://" in os.fspath(views) or bool(Path(views).is_dir() and ShardStore(views).names())


def verify_shards(views: str | os.PathLike[str], repair: bool = False, *, check_bytes: bool = False) -> VerifyReport:
    """Compare shards with their manifests; differences are listed by the paths of the files.

    Args:
        views: folder or URL.
        repair: delete manifests without their tar, damaged tars with their manifests, and tars without a manifest;
            the next ``generate_shards`` makes these again. Not while views are generated.
        check_bytes: read every tar and compare its SHA-256; otherwise sizes are compared.
    """
    store = ShardStore(views)
    unlisted = store.unlisted_tars()
    faults: dict[str, list[str]] = {"row without file": [], "damaged": []}
    rows = 0
    for name in store.names():
        with store.manifest(name) as (manifest, about):
            rows += manifest.file.metadata.num_rows
        if fault := store.fault(name, about, check_bytes):
            faults[fault].append(f"{name}.tar")
            if repair:
                store.remove(name, ".parquet")  # its tar, if there is one, is then without a manifest
    if repair:
        for name in store.unlisted_tars():
            store.remove(name, ".tar")
    return VerifyReport(
        views=rows,
        rows_without_file=faults["row without file"],
        files_without_row=[f"{name}.tar" for name in unlisted],
        damaged=faults["damaged"],
        broken_lines=[],
    )


@contextlib.contextmanager
def writing_to(place: str) -> Iterator[None]:
    """Turn errors of stores into a ShardError of one line."""
    try:
        yield
    except ShardError:
        raise
    except Exception as error:  # each store raises types of its own
        raise ShardError(f"cannot write {place}: {' '.join(str(error).split())[:300]}; run again to resume") from error
