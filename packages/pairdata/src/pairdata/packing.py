"""Pack images and their views into records: one file after another, atomically, by several processes.

Legend: K view slots and M slots for interpolated views in each row.
"""

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import pairwise
from os import fsencode
from pathlib import Path
from typing import Any

import numpy as np

from genviews_core.disk import require_space
from genviews_core.files import atomic_write, writing
from genviews_core.lock import lock_folder
from genviews_core.pixel_range import Range
from genviews_core.reader_processes import start_method
from pairdata.batch_reader import AlignedViews
from pairdata.ffcv_format import Mode, read_tables
from pairdata.index import ImageIndex, index_images
from pairdata.jpeg_decoder import Decode, open_decoder
from pairdata.manifest import ViewsIndex
from pairdata.records import FORMAT, INDEX, ROWS, Layout, Records, Shard, check_length, make_index
from pairdata.shards import ShardWriter, file_hash

PLAN, FAILURES = "packing.json", "failures.jsonl"
SHARD_IMAGES, MOST_SHARDS = 4096, 512  # few enough for the limit of open files of a process

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Content of a folder of records: numbers of images, of their views, and of unreadable files."""

    images: int
    views: int
    failures: int


def pack_records(
    images: str | Path,
    out: str | Path,
    *,
    views: str | Path | None = None,
    interpolated: str | Path | None = None,
    views_per_image: int | None = None,
    size: int = 288,
    mode: Mode = "jpeg",
    quality: int = 90,
    shard_images: int | None = None,
    value_range: Range | None = None,
    workers: int = 0,
    on_progress: OnProgress | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Packed:
    """Pack all images of a folder as `FolderLoader` reads them, in the order of the keys.

    If interrupted, it continues with the missing files. As in `FolderLoader`, an unreadable image is replaced by the
    next readable one, an unreadable view is omitted; both are listed in OUT/failures.jsonl.

    Args:
        images: the folder of images.
        out: the folder of records.
        views: a folder of views with their manifest; its interpolated views are not used.
        interpolated: a folder of interpolated views with their manifest (may be the same folder).
        views_per_image: view slots per row, K; None for the largest number of views of any image.
        size: height and width of the squares, pixels.
        mode: "jpeg" or "raw" (bit-identical to `FolderLoader`, with 3 size^2 bytes per square).
        quality: JPEG quality, 1 to 95.
        shard_images: images per file; None for 4096, or more to keep at most 512 files.
        value_range: values mapped to 0 and 255 in images of more than 8 bits; None for each image's own range.
        workers: processes that pack one file at a time; 0 packs in this process.
        on_progress: called with (done, total) images.
        on_message: called with a line about the disk that the records take.

    Raises:
        ValueError: there are no images, the views are of other images, OUT has other records, an option is out of
            range, a worker was killed, another process packs there, or the disk is full, too small or not writable.
            Finished files are kept.
    """
    _check(
        size=(size, 1, 4096),
        quality=(quality, 1, 95),
        shard_images=(1 if shard_images is None else shard_images, 1, 2**31),
    )
    if mode not in ("jpeg", "raw"):
        raise ValueError(f'expected mode "jpeg" or "raw", got {mode!r}')
    index, out = index_images(images), Path(out)
    aligned = AlignedViews(ViewsIndex(views), index) if views is not None else None
    mixed = AlignedViews(ViewsIndex(interpolated, interpolated=True), index) if interpolated is not None else None
    layout = Layout(
        size=size,
        mode=mode,
        quality=quality if mode == "jpeg" else 0,
        views=_view_slots(aligned, views_per_image),
        mixed=_view_slots(mixed, None),
    )
    each = shard_images or max(SHARD_IMAGES, -(-len(index) // MOST_SHARDS))
    ranged = {"value_range": list(value_range)} if value_range else {}
    packer = ShardWriter(index, aligned, mixed, layout, shard_images=each, out=out, value_range=value_range)
    files = [packer.file(number) for number in range(-(-len(index) // each))]
    listed = np.minimum(aligned.counts, layout.views) if aligned else np.zeros(len(index), np.int64)
    with lock_folder(out), writing(out):
        _check_plan(out, _plan(index, aligned, mixed, layout, each) | ranged)
        _pack_missing(packer, files, len(index), workers, on_progress, on_message)
        return _join(packer, files, listed)


def _square_bytes(layout: Layout) -> float:
    """Return the expected bytes of a square; those of JPEG as measured on photographs of 32 and 288 px."""
    if layout.mode == "raw":
        return 3.0 * layout.size**2
    return 620 + layout.size**2 * float(np.interp(layout.quality, (50, 75, 90, 95), (0.14, 0.21, 0.34, 0.48)))


def verify_records(out: str | Path, *, on_progress: OnProgress | None = None) -> dict[str, str]:
    """Verify records: the SHA-256 of each file, the decoding of every square, the order of the keys.

    Damaged files are marked, so that `pack_records` packs them again.

    Returns:
        The reason by damaged file; empty if all are intact.

    Raises:
        ValueError: there are no records, or they are unfinished.
    """
    records, damaged = Records(out), {}
    decode = open_decoder(records.layout.mode, records.layout.size)
    for number, shard in enumerate(records.shards):
        why = _damage(records, number, decode)
        if why is not None:
            damaged[shard.file] = why
            (records.root / shard.file).with_suffix(".json").unlink(missing_ok=True)
        if on_progress:
            on_progress(min((number + 1) * records.shard_images, len(records)), len(records))
    return damaged


def _damage(records: Records, number: int, decode: Decode) -> str | None:
    """Return why a file is damaged, or None."""
    shard, first = records.shards[number], number * records.shard_images
    rows = np.asarray(records.rows[first : first + records.shard_images])
    if file_hash(records.root / shard.file) != shard.sha256:
        return "its SHA-256 differs"
    try:
        located = records.layout.locate(read_tables(records.root / shard.file))
    except ValueError as error:
        return str(error)
    if not np.array_equal(located, rows):
        return f"its rows are not those of {ROWS}"
    square = np.empty((records.layout.size, records.layout.size, 3), np.uint8)
    for row, offset, length in _stored(rows):
        if not decode(int(records.addresses[number]) + offset, length, square.ctypes.data):
            return f"a square of {records.key(first + row)!r} does not decode"
    keys = [fsencode(records.key(row)) for row in range(max(first - 1, 0), first + len(rows))]
    if any(key >= following for key, following in pairwise(keys)):
        return "its keys are out of order"
    return None


def _stored(rows: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Return row, offset and length of every existing square."""
    for row, column in zip(*np.nonzero(rows["square"]["exists"]), strict=True):
        square = rows["square"][row, column]
        yield int(row), int(square["place"]), int(square["bytes"])


def _pack_missing(
    packer: ShardWriter,
    files: Sequence[str],
    images: int,
    workers: int,
    on_progress: OnProgress | None,
    on_message: Callable[[str], None] | None,
) -> None:
    missing = [number for number, file in enumerate(files) if not _is_whole(packer.out, file)]
    done = images - sum(len(packer.positions(number)) for number in missing)
    size = (images - done) * len(packer.layout.squares) * _square_bytes(packer.layout)
    line = require_space(packer.out, size, f"records of {images - done:,} images")
    if on_message and missing:
        on_message(line)
    if on_progress:
        on_progress(done, images)
    for number in _each(packer, missing, workers):
        done += len(packer.positions(number))
        if on_progress:
            on_progress(done, images)


def _each(packer: ShardWriter, numbers: Sequence[int], workers: int) -> Iterator[int]:
    """Pack files, and yield the number of each finished file."""
    if workers == 0 or len(numbers) < 2:
        yield from map(packer.pack, numbers)
        return
    context = multiprocessing.get_context(start_method())
    with ProcessPoolExecutor(min(workers, len(numbers)), context, _hold, (packer,)) as pool:
        try:
            yield from pool.map(_pack_held, numbers)
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process was killed, possibly for lack of memory; start again with fewer workers, "
                "finished files are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_held: list[ShardWriter] = []  # in a process of the pool, the one packer it works for


def _hold(packer: ShardWriter) -> None:
    _held[:] = [packer]


def _pack_held(number: int) -> int:
    return _held[0].pack(number)


def _is_whole(out: Path, file: str) -> bool:
    try:
        check_length(out, _shard(out, file))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _shard(out: Path, file: str) -> Shard:
    facts = _facts(out, file)
    return Shard(file=file, bytes=facts["bytes"], sha256=facts["sha256"])


def _facts(out: Path, file: str) -> dict[str, Any]:
    return json.loads((out / file).with_suffix(".json").read_text(encoding="utf-8"))


def _join(packer: ShardWriter, files: Sequence[str], listed: np.ndarray) -> Packed:
    """Write rows.npy, failures.jsonl and records.json from the files; `listed` is the number of views per image."""
    out, index, layout, each = packer.out, packer.index, packer.layout, packer.shard_images
    failures: dict[str, str] = {}

    def write_rows(temporary: Path) -> None:
        with temporary.open("wb") as opened:  # not memory-mapped: a full disk would kill the process
            np.lib.format.write_array_header_1_0(opened, _header(layout.row_type, len(index)))
            for file in files:
                opened.write(layout.locate(read_tables(out / file)).tobytes())

    atomic_write(out / ROWS, write_rows)
    for file in files:
        failures |= _facts(out, file)["failures"]
    lines = (json.dumps({"path": path, "why": why}) + "\n" for path, why in sorted(failures.items()))
    atomic_write(out / FAILURES, "".join(lines))
    joined = make_index(
        layout,
        [_shard(out, file) for file in files],
        images=len(index),
        shard_images=each,
        classes=index.classes,
        counts=dict(enumerate(np.bincount(listed).tolist())),
    )
    atomic_write(out / INDEX, json.dumps(joined, indent=1) + "\n")
    return Packed(images=len(index), views=int(listed.sum()), failures=len(failures))


def _header(row_type: np.dtype, rows: int) -> dict[str, Any]:
    """Return the header of an .npy file."""
    return {"descr": np.lib.format.dtype_to_descr(row_type), "fortran_order": False, "shape": (rows,)}


def _view_slots(aligned: AlignedViews | None, wanted: int | None) -> int:
    if wanted is not None:
        if aligned is None:
            raise ValueError(f"views_per_image={wanted} needs views; give their folder")
        _check(views_per_image=(wanted, 1, 2**15))
    return min(int(aligned.counts.max()), wanted or sys.maxsize) if aligned else 0


def _plan(
    index: ImageIndex, views: AlignedViews | None, mixed: AlignedViews | None, layout: Layout, each: int
) -> dict[str, Any]:
    """Return the settings that determine the content of the files."""
    digest = blake2b(digest_size=16)
    for arrays in (
        (index.keys.data, index.keys.offsets),
        *((a.views.files.data, a.first, a.counts, a.views.partners.data, a.views.alpha) for a in (views, mixed) if a),
    ):
        for array in arrays:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    names = {"format": FORMAT, "shard_images": each, "images": len(index), "names": digest.hexdigest()}
    return asdict(layout) | names


def _check_plan(out: Path, plan: dict[str, Any]) -> None:
    """Check that OUT is empty or contains the same records."""
    path = out / PLAN
    if path.is_file():
        try:
            existing = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            existing = {}
        differ = sorted(name for name in existing.keys() | plan.keys() if existing.get(name) != plan.get(name))
        if differ:
            raise ValueError(
                f"{out} contains records of other images, views or options (they differ in: {', '.join(differ)}); "
                "choose another folder, or delete that one"
            )
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and contains no records; choose another folder")
    for left in out.glob("*.tmp"):
        left.unlink()
    atomic_write(path, json.dumps(plan, indent=1) + "\n")


def _check(**numbers: tuple[int, int, int]) -> None:
    for name, (value, lowest, highest) in numbers.items():
        if not lowest <= value <= highest:
            raise ValueError(f"expected {name} of {lowest} to {highest}, got {value}")
