"""Generate views shard by shard: one tar of views and one manifest per shard of images, in a folder or object store.

A shard of images is generated as a folder of its own (``generate_views``), packed and published: first the tar, then
the manifest, which holds the tar's SHA-256. A shard whose manifest exists is finished.
"""

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from genviews_core.shards import find_shards
from viewgen.fingerprint import ensure_same_config
from viewgen.generator import Generator
from viewgen.loading import GeneratorSpec
from viewgen.manifest.merge import merge_journals
from viewgen.manifest.shard_store import ShardStore
from viewgen.manifest.table import open_manifest, view_path
from viewgen.run.generate import Progress, RunSummary, generate_views
from viewgen.run.local_engine import one_thread
from viewgen.strength import as_strength


def generate_shards(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    generator: Generator | GeneratorSpec,
    *,
    views_per_image: int = 1,
    shard: tuple[int, int] = (0, 1),
    on_progress: Progress | None = None,
    **options: Any,
) -> RunSummary:
    """Write ``views-000123.tar`` and ``views-000123.parquet`` for shard 123 of the images; skip finished ones.

    The rows are those of ``generate_views`` and the members of the tar are its files. A batch has only views of one
    shard, so the files are the same, byte for byte, for any number of workers and any interruption.

    Args:
        source: shards of images; see ``genviews_core.shards.find_shards``.
        out: folder or URL.
        generator: the generator, or how to load it; with one device or none given it is loaded once, otherwise once
            per process and shard.
        views_per_image: K.
        shard: (index, count): this call's shards are index, index + count, ...
        on_progress: called with (shards done, shards in all).
        options: other options of ``generate_views``, except ``keys``.

    Returns:
        Counts of views.

    Raises:
        ValueError: as ``generate_views``; or ``out`` holds views of other settings or shards, or cannot be written.
    """
    if options.get("keys") is not None:
        raise ValueError("expected no list of keys together with shards, got one; make shards of these images")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"expected shard (index, count) with 0 <= index < count, got {shard}")
    shards, store = find_shards(source), ShardStore(out)
    if any(os.path.dirname(shard) == store.url_of_folder for shard in shards):  # noqa: PTH120 (URLs as well)
        raise ValueError(f"expected another place for the views than that of the images, got {store.out} for both")
    if options.get("engine", "local") == "ray" and not store.is_local:
        raise ValueError("expected engine local with shards in a store, got ray; start jobs with --shard instead")
    mine = range(shard[0], len(shards), shard[1])
    known = {"views_per_image": views_per_image, **_known_settings(options)}
    store.check_settings(known)
    written = already = failed = 0
    with _loaded(generator, options) as (ready, given):
        for place, number in enumerate(mine):
            rows = store.finished(number, shards[number])
            if rows is not None:
                already += rows
            else:
                summary = _make(shards[number], number, store, ready, {**given, "views_per_image": views_per_image})
                written, failed = written + summary.written + summary.already, failed + summary.failed
            if on_progress is not None:
                on_progress(place + 1, len(mine))
    return RunSummary(wanted=written + already + failed, written=written, already=already, failed=failed)


def _known_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return those settings of the views that are known before the generator is loaded."""
    strength, mix = as_strength(options.get("strength")), options.get("interpolate")
    embeddings = options.get("embeddings")
    return {
        "seed": options.get("seed", 0),
        "strength": None if strength is None else strength.description(),
        "image_format": options.get("image_format", "png"),
        "encoder_hash": None if embeddings is None else embeddings.encoder_hash,
        "interpolate": None if mix is None else asdict(mix),
    }


@contextlib.contextmanager
def _loaded(generator: Generator | GeneratorSpec, options: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Load a generator that stays in this process; return it with the options of ``generate_views``."""
    devices = options.get("devices")
    elsewhere = options.get("engine", "local") != "local" or (devices is not None and len(devices) > 1)
    if elsewhere or not isinstance(generator, GeneratorSpec):
        yield generator, options
        return
    device = devices[0] if devices else "cuda" if torch.cuda.is_available() else "cpu"
    with one_thread() if device == "cpu" else contextlib.nullcontext():
        yield generator.load(device), {**options, "devices": None}


def _make(shard: str, number: int, store: ShardStore, generator: Any, options: dict[str, Any]) -> RunSummary:
    with store.staging(number) as place:
        views, begun = place / "views", {"source": shard, "views_per_image": options["views_per_image"]}
        ensure_same_config(place / "begun.json", begun, holds="a shard begun with other settings")
        summary = generate_views(shard, views, generator, **options)
        failures = views / "failures.jsonl"
        if not summary.written + summary.already:
            first = failures.read_text().partition("\n")[0][:300]
            raise ValueError(f"none of the images of {shard} can be read; the first: {first}")
        merge_journals(views)
        settings = json.loads((views / "settings.json").read_text())
        store.check_settings({**settings, "views_per_image": options["views_per_image"]}, keep=True)
        tar = pack_views(views, place / "views.tar")
        store.publish(number, shard, views / "manifest.parquet", tar, failures.read_bytes())
    return summary


def pack_views(views_root: Path, tar_path: Path) -> Path:
    """Write the views of a manifest to a tar in the order of its rows; equal views give equal bytes."""
    with tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as tar:
        for batch in open_manifest(views_root).batches(1000, ["path"]):
            for path in batch.column(0).to_pylist():
                member, data = tarfile.TarInfo(path), view_path(views_root, path).read_bytes()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return tar_path
