"""Detection of the layout of a checkpoint, or of name prefixes if the layout is unknown."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslzoo.official.layout import Layout, unwrapped
from sslzoo.official.layouts import BARE, LAYOUTS, NAMED
from sslzoo.official.rename import Tensors, from_lightly, only_counted

FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight", "0.weight")
"""First layer of a ResNet, a vision transformer, and a ResNet in an nn.Sequential."""


def find_layout(
    path: Path, content: dict[str, Any], name: str | None, own: Collection[str] = ()
) -> tuple[Layout, Tensors]:
    """Return the layout of a checkpoint and its tensors.

    Args:
        path: path of the file, for error messages.
        content: content of the file.
        name: name of the layout, if given by the user.
        own: tensor names of the architecture, if given by the user.

    Raises:
        ValueError: the name is unknown, or no layout matches.
    """
    known = {layout.name: layout for layout in (*LAYOUTS, *NAMED)}
    if name is not None and name not in known:
        raise ValueError(f"Unknown layout {name!r}; known: {', '.join(known)}.")
    for layout in LAYOUTS if name is None else [known[name]]:
        tensors = layout.tensors(content)
        if tensors is None:
            continue
        if layout.rename is not only_counted or not _has_prefix(tensors) or not tensors.keys().isdisjoint(own):
            return layout, tensors
    wanted = "an unknown layout" if name is None else f"not the layout {name}"
    if prefixes := sorted({prefix for tensors in _state_dicts(content) for prefix in prefixes_of(tensors) if prefix}):
        listed = " or ".join(prefixes[:4])
        raise ValueError(
            f"{path} has {wanted}; networks in it have names that begin with {listed}; choose one with "
            f"--prefix {prefixes[0]} (prefix= in Python)"
        )
    found = [f"{key} ({', '.join(list(map(str, value))[:3])}, ...)" if isinstance(value, dict) else str(key)
             for key, value in list(content.items())[:8]]  # fmt: skip
    raise ValueError(f"{path} has {wanted}; found {', '.join(found) or 'nothing in it'}. Known: {', '.join(known)}.")


def by_prefix(path: Path, content: dict[str, Any], prefix: str) -> tuple[Layout, Tensors]:
    """Return the tensors whose names start with a prefix, given with or without its final dot.

    Raises:
        ValueError: no name starts with the prefix.
    """
    prefix = f"{prefix.removesuffix('.')}."
    for tensors in _state_dicts(content):
        inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if inside:
            renamed = from_lightly(inside) if "0.weight" in inside else inside
            return replace(BARE, name=f"prefix {prefix}", rename=None), renamed
    raise ValueError(f"{path} has no tensor whose name begins with {prefix}")


def prefixes_of(tensors: Tensors) -> set[str]:
    """Return the name prefixes of all networks that take images, found by their first layers."""
    first = [(name, end) for end in FIRST_LAYERS for name in tensors if name.endswith(end)]
    images = [(name, end) for name, end in first if tensors[name].ndim == 4 and tensors[name].shape[1] == 3]
    starts = {name.removesuffix(end) for name, end in images}
    return {start for start in starts if not start or re.search(r"[^.\d]\.$", start)}


def _has_prefix(tensors: Tensors) -> bool:
    """Return whether there are networks, all with a nonempty name prefix."""
    prefixes = prefixes_of(tensors)
    return bool(prefixes) and "" not in prefixes


def _state_dicts(content: dict[str, Any]) -> Iterator[Tensors]:
    """Yield all state dicts in a file."""
    yield from filter(None, map(unwrapped, (content, *content.values())))
