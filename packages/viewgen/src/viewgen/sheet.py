"""A contact sheet of a run: some source images above, their views below, each captioned with its settings."""

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from io import BytesIO
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image, ImageDraw, ImageFont

from genviews_core.channels import read_preview
from genviews_core.files import atomic_write
from genviews_core.images import UnreadableImage
from genviews_core.shards import find_shards, is_sharded
from viewgen.keys import key_path
from viewgen.manifest.journal import journal_paths, journal_tables
from viewgen.manifest.shard_store import ShardStore, holds_shards
from viewgen.manifest.table import Manifest, open_manifest, view_path
from viewgen.seeding import generator_for, stable_seed
from viewgen.sharded import Images, ShardedImages, open_images

Row = dict[str, Any]
COLUMNS = ("key", "k", "path", "generator", "model", "strength", "foreground_ratio", "partner_key", "alpha")
TRIES = 50  # rows drawn per image wanted, before the manifest is taken to have no more images


def choose_rows(views_root: Path, count: int, seed: int | None) -> list[list[Row]]:
    """Return the rows of ``count`` images, or of all if there are fewer, sorted by key and k.

    Raises:
        ValueError: there is no view, or the manifest or a journal is damaged or lists a path outside the folder.
    """
    if (views_root / "manifest.parquet").is_file():
        opened = open_manifest(views_root)
        keys = _draw_keys(opened, count, seed)
        found = [opened.read_keys(keys, COLUMNS)]
    else:
        keys = _least_keys(views_root, count, seed)
        found = [table.filter(pc.field("key").isin(keys)) for table in _journals(views_root, COLUMNS)] if keys else []
    if not keys:
        raise ValueError(f"expected one or more views in {views_root}, got none; generate some with `viewgen generate`")
    rows = {(row["key"], row["k"]): row for table in found for row in table.to_pylist()}
    return [[rows[place] for place in sorted(rows) if place[0] == key] for key in sorted(keys)]


def _draw_keys(manifest: Manifest, count: int, seed: int | None) -> list[str]:
    """Return the keys of rows sampled from the whole manifest, or of the first rows if there is no seed."""
    groups = manifest.group_rows
    total = sum(groups)

    @lru_cache(maxsize=1)
    def keys_of(group: int) -> pa.ChunkedArray:
        return manifest.read_group(group, ["key"])["key"]

    keys = dict[str, None]()
    generator = generator_for(seed or 0, "contact sheet")
    for draw in range(total if seed is None else TRIES * count):
        row = draw if seed is None else int(torch.randint(total, (), generator=generator))
        group = 0
        while row >= groups[group]:
            row, group = row - groups[group], group + 1
        keys[keys_of(group)[row].as_py()] = None
        if len(keys) == count:
            break
    return list(keys)


def _least_keys(views_root: Path, count: int, seed: int | None) -> list[str]:
    """Return the keys with the lowest hashes, or the first keys; all journals are read, few rows are kept."""
    keys = dict[str, None]()
    for table in _journals(views_root, ["key"]):
        keys.update(dict.fromkeys(table["key"].unique().to_pylist()))
        rank = None if seed is None else (lambda key: stable_seed(seed, key))
        keys = dict.fromkeys(heapq.nsmallest(count, keys, key=rank))
    return list(keys)


def _journals(views_root: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    for path in journal_paths(views_root):
        yield from journal_tables(path, columns)


FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
INK, PALE, PAPER, ABSENT = "#1a1a1a", "#6b6b6b", "#ffffff", "#e4e4e4"
GAP = 8  # pixels between tiles


def contact_sheet(
    images_root: str | os.PathLike[str],
    views_root: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    count: int = 8,
    seed: int | None = 0,
    tile: int = 192,
    strength_unit: str = "strength",
) -> Path:
    """Draw some images and all their views.

    Args:
        images_root: folder of images, or shards of them.
        views_root: their views: a folder, or a folder or URL of shards of views.
        out_path: a .png or .jpg file to write.
        count: images shown.
        seed: seed of the choice of images; None takes the first.
        tile: size in pixels of each image on the sheet.
        strength_unit: label of the strength.

    Returns:
        The file's path.

    Raises:
        ValueError: if there are no views, or an argument does not fit.
    """
    out = Path(out_path)
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"expected a .png or .jpg file for the contact sheet, got {out}")
    if count < 1 or tile < 32:
        raise ValueError(f"expected count of 1 or more and tile of 32 or more, got {count} and {tile}")
    if holds_shards(views_root):
        drawn = _draw_shard(images_root, ShardStore(views_root), count, seed, partial(_Sheet, tile, strength_unit))
    else:
        rows, locate = choose_rows(Path(views_root), count, seed), partial(view_path, Path(views_root))
        with open_images(images_root) as images:
            drawn = _Sheet(tile, strength_unit, images, locate).draw(rows)
    buffer = BytesIO()
    drawn.save(buffer, format=FORMATS[out.suffix.lower()])
    atomic_write(out, buffer.getvalue())
    return out


def _draw_shard(
    images_root: str | os.PathLike[str],
    store: ShardStore,
    count: int,
    seed: int | None,
    sheet: Callable[..., "_Sheet"],
) -> Image.Image:
    """Draw images of one shard of views, drawn at random, or of the first without a seed."""
    names = store.names()
    if not names:
        raise ValueError(f"expected shards of views in {store.out}, got none; run `viewgen generate --shards`")
    drawn = 0 if seed is None else int(torch.randint(len(names), (), generator=generator_for(seed, "shard")))
    with store.manifest(names[drawn]) as (manifest, about), contextlib.ExitStack() as opened:
        rows = choose_rows(manifest.path.parent, count, seed)
        source = os.fspath(images_root)
        if is_sharded(source):
            own = PurePosixPath(about.source).name
            source = next((shard for shard in find_shards(source) if PurePosixPath(shard).name == own), source)
        images = opened.enter_context(open_images(source))
        views = opened.enter_context(open_images(store.url(names[drawn], ".tar")))
        assert isinstance(views, ShardedImages)
        return sheet(images, views.read).draw(rows)


class _Cell(NamedTuple):
    """An image of the sheet and the lines below it."""

    locate: Callable[[str], Path | bytes]
    name: str
    below: list[str]


class _Sheet:
    """Rows of views: bands of eight columns, each a source above its views."""

    columns = 8

    def __init__(
        self, tile: int, strength_unit: str, images: Images, locate_view: Callable[[str], Path | bytes]
    ) -> None:
        self.locate = images.read if isinstance(images, ShardedImages) else partial(key_path, images)
        self.locate_view = locate_view
        self.tile, self.unit = tile, strength_unit
        size = max(11, tile // 13)
        self.font, self.title_font = ImageFont.load_default(size), ImageFont.load_default(1.4 * size)
        self.line = round(1.35 * size)

    def draw(self, rows: list[list[Row]]) -> Image.Image:
        """Draw the whole sheet."""
        columns = [self.cells(group) for group in rows]
        bands = [columns[start : start + self.columns] for start in range(0, len(columns), self.columns)]
        heights = [self.heights(band) for band in bands]
        width = GAP + max(len(bands[0]), 3) * (self.tile + GAP)
        top = 2 * self.line + 2 * GAP
        self.sheet = Image.new("RGB", (width, top + sum(map(sum, heights))), PAPER)
        self.pen = ImageDraw.Draw(self.sheet)
        title = f"{rows[0][0]['generator']}: {rows[0][0]['model']}"
        self.pen.text((GAP, GAP), self.fit(title, width - 2 * GAP, self.title_font), INK, self.title_font)
        for band, tall in zip(bands, heights, strict=True):
            for place, column in enumerate(band):
                for row, cell in enumerate(column):
                    self.draw_cell(cell, GAP + place * (self.tile + GAP), top + sum(tall[:row]))
            top += sum(tall)
        return self.sheet

    def cells(self, group: list[Row]) -> list[_Cell]:
        """Return a source and its views, from top to bottom."""
        key, ratio = group[0]["key"], group[0]["foreground_ratio"]
        source = _Cell(self.locate, key, [key] + ([] if ratio is None else [f"foreground {ratio:.2f}"]))
        return [source, *(_Cell(self.locate_view, row["path"], self.caption(row)) for row in group)]

    def heights(self, band: list[list[_Cell]]) -> list[int]:
        """Return the height of each row of a band of columns, including the space to the next."""
        lines = [max(len(cell.below) for cell in cells if cell) for cells in zip_longest(*band)]
        return [self.tile + count * self.line + 2 * GAP for count in lines]

    def draw_cell(self, cell: _Cell, left: int, top: int) -> None:
        """Draw an image, or a labeled empty tile, and the lines below it."""
        try:
            pixels = read_preview(cell.locate(cell.name), self.tile)
            self.sheet.paste(Image.fromarray(pixels.permute(1, 2, 0).numpy()), (left, top))
        except UnreadableImage:
            self.pen.rectangle((left, top, left + self.tile - 1, top + self.tile - 1), ABSENT)
            self.pen.text((left + GAP, top + GAP), "cannot be read", PALE, self.font)
        for place, text in enumerate(cell.below):
            corner = (left, top + self.tile + 2 + place * self.line)
            self.pen.text(corner, self.fit(text, self.tile, self.font), PALE if place else INK, self.font)

    def caption(self, row: Row) -> list[str]:
        """Return the lines below a view."""
        strength = "" if row["strength"] is None else f"  {self.unit} {row['strength']:g}"
        lines = [f"k = {row['k']}{strength}"]
        if row["alpha"] is not None:
            lines.append(f"alpha {row['alpha']:.2f}")
        if row["partner_key"] is not None:
            lines.append(f"{'is' if row['alpha'] is None else 'with'} {row['partner_key']}")
        return lines

    def fit(self, text: str, width: int, font: Any) -> str:
        """Shorten the text in the middle to fit one line."""
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        shown, kept = text, len(text)
        while font.getlength(shown) > width and kept > 2:
            kept -= 1
            shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        return shown
