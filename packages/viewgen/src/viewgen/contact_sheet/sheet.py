"""A picture to judge a run by: some sources above, their views below, each with what it was made with."""

import os
from collections.abc import Callable
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from genviews_core.files import atomic_write
from viewgen.contact_sheet.rows import Row, choose_rows
from viewgen.images import UnreadableImage, key_path, read_image
from viewgen.manifest.table import view_path

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
        images_root: the images.
        views_root: their views.
        out_path: a .png or .jpg file to write.
        count: images shown.
        seed: of the choice of images; None takes the first.
        tile: side in pixels of each picture on the sheet.
        strength_unit: what to call the strength.

    Returns:
        The file's path.

    Raises:
        ValueError: if there are no views, or an argument does not fit.
    """
    out = Path(out_path)
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"the contact sheet must be a .png or .jpg file, not {out}")
    if count < 1 or tile < 32:
        raise ValueError(f"count must be at least 1 and tile at least 32, but they are {count} and {tile}")
    rows = choose_rows(Path(views_root), count, seed)
    drawn = _Sheet(Path(images_root), Path(views_root), tile, strength_unit).draw(rows)
    buffer = BytesIO()
    drawn.save(buffer, format=FORMATS[out.suffix.lower()])
    atomic_write(out, buffer.getvalue())
    return out


class _Cell(NamedTuple):
    """A picture of the sheet and the lines below it."""

    locate: Callable[[Path, str], Path]
    root: Path
    name: str
    below: list[str]


class _Sheet:
    """Draws rows of views: bands of eight columns, a source above its views in each."""

    columns = 8

    def __init__(self, images_root: Path, views_root: Path, tile: int, strength_unit: str) -> None:
        self.images_root, self.views_root = images_root, views_root
        self.tile, self.unit = tile, strength_unit
        size = max(11, tile // 13)
        self.font, self.title_font = ImageFont.load_default(size), ImageFont.load_default(1.4 * size)
        self.line = round(1.35 * size)

    def draw(self, rows: list[list[Row]]) -> Image.Image:
        """The whole sheet."""
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
        """A source and its views, from the top down."""
        key, ratio = group[0]["key"], group[0]["foreground_ratio"]
        source = _Cell(key_path, self.images_root, key, [key] + ([] if ratio is None else [f"foreground {ratio:.2f}"]))
        return [source, *(_Cell(view_path, self.views_root, row["path"], self.caption(row)) for row in group)]

    def heights(self, band: list[list[_Cell]]) -> list[int]:
        """The height of each row of a band of columns, with the space to the next."""
        lines = [max(len(cell.below) for cell in cells if cell) for cells in zip_longest(*band)]
        return [self.tile + count * self.line + 2 * GAP for count in lines]

    def draw_cell(self, cell: _Cell, left: int, top: int) -> None:
        """A picture, or an empty tile that says so, and the lines below it."""
        try:
            pixels = read_image(cell.locate(cell.root, cell.name), self.tile)
            self.sheet.paste(Image.fromarray(pixels.permute(1, 2, 0).numpy()), (left, top))
        except UnreadableImage:
            self.pen.rectangle((left, top, left + self.tile - 1, top + self.tile - 1), ABSENT)
            self.pen.text((left + GAP, top + GAP), "cannot be read", PALE, self.font)
        for place, text in enumerate(cell.below):
            corner = (left, top + self.tile + 2 + place * self.line)
            self.pen.text(corner, self.fit(text, self.tile, self.font), PALE if place else INK, self.font)

    def caption(self, row: Row) -> list[str]:
        """What is written below a view."""
        strength = "" if row["strength"] is None else f"  {self.unit} {row['strength']:g}"
        lines = [f"k = {row['k']}{strength}"]
        if row["alpha"] is not None:
            lines.append(f"alpha {row['alpha']:.2f}")
        if row["partner_key"] is not None:
            lines.append(f"{'is' if row['alpha'] is None else 'with'} {row['partner_key']}")
        return lines

    def fit(self, text: str, width: int, font: Any) -> str:
        """The text on one line, its middle left out if it is too wide."""
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        shown, kept = text, len(text)
        while font.getlength(shown) > width and kept > 2:
            kept -= 1
            shown = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
        return shown
