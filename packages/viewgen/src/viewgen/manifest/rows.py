"""Parse the lines of a journal into a table of rows, and report invalid lines."""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from genviews_core.keys import OUTSIDE_PATTERN, leaves_folder
from viewgen.manifest.schema import PATHS, SCHEMA

NOT_A_ROW = "expected the JSON object of a view"


def parse_rows(lines: bytes, columns: Sequence[str]) -> pa.Table | None:
    """Return the rows of complete lines, or None if a line is invalid."""
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pyarrow.json.read_json(BytesIO(lines), pyarrow.json.ReadOptions(block_size=len(lines)), options)
        table = table.cast(schema)
    except pa.ArrowException:
        return None
    if any(table[field.name].null_count for field in schema if not field.nullable):
        return None
    return None if path_outside(table) else table


def path_outside(table: pa.Table) -> tuple[str, str] | None:
    """Return column and value of a path in the table that could leave its folder, or None."""
    pattern = pc.MatchSubstringOptions(OUTSIDE_PATTERN)
    for name in [name for name in PATHS if name in table.column_names]:
        mask = pc.call_function("match_substring_regex", [table[name]], pattern)
        if outside := table[name].filter(mask)[:1].to_pylist():
            return name, outside[0]
    return None


def parse_row(line: bytes) -> dict[str, Any] | str:
    """Return the row of one line, or the reason why the line is invalid."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return NOT_A_ROW
    if not isinstance(row, dict):
        return NOT_A_ROW
    for field in SCHEMA:
        value = row.get(field.name)
        if not (field.nullable if value is None else _fits(value, field.type)):
            return f"expected {field.name} of type {field.type}, got {json.dumps(value)[:60]}"
    outside = [name for name in PATHS if row.get(name) is not None and leaves_folder(row[name])]
    if outside:
        return f"expected {outside[0]} to be a path inside its folder, got {row[outside[0]]!r}"
    return {name: row.get(name) for name in SCHEMA.names}


def _fits(value: Any, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind):
        return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if pa.types.is_floating(kind):
        return type(value) in (int, float)
    return type(value) is int and -(2 ** (kind.bit_width - 1)) <= value < 2 ** (kind.bit_width - 1)
