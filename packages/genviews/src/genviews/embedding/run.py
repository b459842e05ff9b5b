"""Embed a folder of images, and write the vectors to one file.

Shapes: N images, D the length of an embedding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import viewgen
from genviews.embedding.options import EmbedOptions
from genviews.encoders import open_encoder
from genviews.processes import require_main_process
from genviews.run_config import write_config
from genviews_core.device import resolve_device
from genviews_core.files import atomic_write, check_writable
from genviews_core.progress import progress_bar

ROWS = 8192
"""Rows held in memory at a time."""


def run(options: EmbedOptions) -> viewgen.Embeddings:
    """Embed the images that are missing, write OUT, and draw the map if asked for.

    Raises:
        ValueError: an option is invalid, the backbone or all images cannot be read, or OUT.parts holds embeddings of
            another backbone or of other images; or this is not the first process of torchrun.
    """
    require_main_process("embed")
    _check(options)
    device = resolve_device(options.device)
    pixels = {"channels": options.channels, "value_range": options.value_range}
    encoder = open_encoder(options.backbone, options.images, device=str(device), **pixels)
    with progress_bar("embeddings") as update:
        embeddings = viewgen.embed_images(
            options.images,
            options.out.with_name(f"{options.out.name}.parts"),
            encoder,
            batch_size=options.batch_size,
            workers=options.workers,
            on_progress=update,
        )
    write_config(embeddings.folder, "embed", options)
    write = write_array if options.out.suffix == ".npy" else write_parquet
    write(options.out, embeddings, options.dtype)
    if options.map is not None:
        from genviews.embedding.map_page import write_map

        count = write_map(options.map, embeddings, options)
        print(f"map of {count} images: {options.map}", file=sys.stderr)
    return embeddings


def _check(options: EmbedOptions) -> None:
    if options.out.suffix not in (".parquet", ".npy"):
        raise ValueError(f"expected --out with .parquet or .npy, got {options.out}; give features.parquet")
    if min(options.batch_size, options.map_points - 3, options.thumbnail) < 1:
        raise ValueError("expected --batch-size and --thumbnail of 1 or more and --map-points of 4 or more")
    check_writable(options.out)
    if options.map is not None:
        from genviews.embedding.map_page import require_tsne

        require_tsne()
        check_writable(options.map)


def write_parquet(path: Path, embeddings: viewgen.Embeddings, dtype: str) -> None:
    """Write the columns key and vector, a fixed-size list, row group by row group."""
    element = pa.float16() if dtype == "float16" else pa.float32()
    vector = pa.list_(element, embeddings.dim)
    about = {"backbone": embeddings.encoder_name, "backbone_hash": embeddings.encoder_hash}
    schema = pa.schema([("key", pa.string()), ("vector", vector)], metadata=about)

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for keys, rows in _parts(embeddings):
                values = pa.array(rows.astype(dtype).reshape(-1), type=element)
                columns = [pa.array(keys, pa.string()), pa.FixedSizeListArray.from_arrays(values, type=vector)]
                writer.write_table(pa.table(columns, schema=schema))

    atomic_write(path, write)


def write_array(path: Path, embeddings: viewgen.Embeddings, dtype: str) -> None:
    r"""Write an array (N, D), and its keys to STEM.keys.txt, one per line; a newline in a key is written as \n."""

    def write(temporary: Path) -> None:
        shape = (len(embeddings), embeddings.dim)
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, rows in _parts(embeddings):
                file.write(rows.astype(dtype).tobytes())

    def write_keys(temporary: Path) -> None:
        with temporary.open("w") as file:
            file.writelines(f"{_line(key)}\n" for keys, _ in _parts(embeddings) for key in keys)

    atomic_write(path, write)
    atomic_write(path.with_name(f"{path.stem}.keys.txt"), write_keys)


def _line(key: str) -> str:
    return key.replace("\\", "\\\\").replace("\n", "\\n")


def _parts(embeddings: viewgen.Embeddings) -> Iterator[tuple[list[str], np.ndarray]]:
    for start in range(0, len(embeddings), ROWS):
        stop = min(start + ROWS, len(embeddings))
        yield [embeddings.keys[row] for row in range(start, stop)], embeddings.vectors[start:stop]
