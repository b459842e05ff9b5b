"""Captions of images from a file, and a guidance scale for each, as https://github.com/xiaojieli0903/GenViewPlusPlus."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from genviews_core.backbones import first_line
from viewgen.fingerprint import file_hash

READERS = {".csv": pyarrow.csv.read_csv, ".jsonl": pyarrow.json.read_json, ".parquet": pq.read_table}
COLUMNS = "columns key, caption and, if guidance is to differ between images, guidance"


class CaptionTable:
    """Captions by image key.

    Args:
        path: a .csv, .jsonl or .parquet file with the columns key and caption, perhaps guidance.

    Attributes:
        captions: the captions, by row.
        guidance: guidance scale of each row, or None.
        hash: hash of the file.

    Raises:
        ValueError: if the file cannot be read, lacks a column, or a guidance scale is below 1.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = Path(path)
        if file.suffix not in READERS:
            raise ValueError(f"expected captions in {', '.join(READERS)}, got {path}; give a file with {COLUMNS}")
        try:
            table = READERS[file.suffix](file)
        except Exception as error:  # a broken file raises many unrelated types
            raise ValueError(f"cannot read the captions {path} ({first_line(error)})") from error
        lacking = {"key", "caption"} - set(table.column_names)
        if lacking:
            raise ValueError(f"expected {COLUMNS} in {path}, got none named {', '.join(sorted(lacking))}")
        self._rows = {str(key): row for row, key in enumerate(table.column("key").to_pylist())}
        self.captions = ["" if text is None else str(text) for text in table.column("caption").to_pylist()]
        self.guidance: np.ndarray | None = None
        if "guidance" in table.column_names:
            self.guidance = np.array(table.column("guidance").to_pylist(), dtype=np.float32)
            if not bool((self.guidance >= 1).all()):
                raise ValueError(f"expected guidance of 1 or more in {path}, got others; correct these rows")
        self.path, self.hash = file, file_hash(file)

    def rows(self, keys: Sequence[str]) -> Int[Tensor, " B"]:
        """Return the rows of images.

        Raises:
            ValueError: if an image has no caption.
        """
        lost = next((key for key in keys if key not in self._rows), None)
        if lost is not None:
            raise ValueError(f"expected a caption for every image in {self.path}, got none for {lost!r}; add it")
        return torch.tensor([self._rows[key] for key in keys])

    def scales(self, rows: Int[Tensor, " B"], default: float) -> Float[Tensor, " B"]:
        """Return the guidance scales of rows, or the default if the file has none."""
        if self.guidance is None:
            return torch.full((len(rows),), default)
        return torch.from_numpy(self.guidance)[rows]
