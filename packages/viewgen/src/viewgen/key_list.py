"""Read which images to take from a file that names them."""

import json
import os
from pathlib import Path, PurePosixPath

from viewgen.images import UnreadableImage, key_path


def read_key_list(
    path: str | os.PathLike[str], images_root: str | os.PathLike[str]
) -> tuple[list[str], dict[str, str]]:
    """The keys that a file lists, and what is wrong with each line that is none.

    One key per line; in a ``.jsonl`` file one JSON string per line, which can also hold a line break. "./a//b.png" is
    read as "a/b.png". Empty lines are passed over. Whether the images are there is not looked up.

    Args:
        path: the list.
        images_root: the folder that the keys are relative to.

    Returns:
        The keys, sorted, each once; and for every refused line (absolute, climbing with ``..``, not UTF-8, not JSON)
        the line and the reason.

    Raises:
        ValueError: if the list cannot be read or names no image.
    """
    path, root = Path(path), Path(images_root)
    keys, refused = set[str](), dict[str, str]()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for line in (line.removesuffix("\n").removesuffix("\r") for line in lines):
                try:
                    keys.update(_keys_of(line, as_json=path.suffix == ".jsonl", root=root))
                except UnreadableImage as error:
                    refused[line] = str(error)
    except OSError as error:
        raise ValueError(f"cannot read the list of images {path}: {error.strerror}") from error
    if not keys and not refused:
        raise ValueError(f"the list {path} names no image: write one key per line")
    return sorted(keys), refused


def _keys_of(line: str, *, as_json: bool, root: Path) -> list[str]:
    """The key of a line, or none of an empty line."""
    if not line:
        return []
    key = line
    if as_json:
        try:
            key = json.loads(line)
        except ValueError:
            key = None
        if not isinstance(key, str):
            raise UnreadableImage("the line is refused: write one JSON string per line")
    key_path(root, key)
    return [str(PurePosixPath(key))]
