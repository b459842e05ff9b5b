"""Which layout a file has, and what its tensors' names begin with where it has none that is known."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslzoo.official.layout import Layout, unwrapped
from sslzoo.official.layouts import BARE, LAYOUTS, NAMED
from sslzoo.official.rename import Tensors, from_lightly, only_counted

FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight", "0.weight")
"""Of a ResNet, a vision transformer, and a ResNet's children in a Sequential."""


def find_layout(
    path: Path, content: dict[str, Any], name: str | None, own: Collection[str] = ()
) -> tuple[Layout, Tensors]:
    """The layout of a file's content, and its tensors.

    Args:
        path: of the file, for the messages.
        content: of the file.
        name: of the layout, where the user says it.
        own: names of the network's tensors, where the user says which it is.

    Raises:
        ValueError: an unknown name, or no layout has these tensors.
    """
    known = {layout.name: layout for layout in (*LAYOUTS, *NAMED)}
    if name is not None and name not in known:
        raise ValueError(f"Unknown layout {name!r}; known: {', '.join(known)}.")
    for layout in LAYOUTS if name is None else [known[name]]:
        tensors = layout.tensors(content)
        if tensors is None:
            continue
        if layout.rename is not only_counted or not _behind_prefix(tensors) or not tensors.keys().isdisjoint(own):
            return layout, tensors
    wanted = "no layout that is known here" if name is None else f"not the layout {name}"
    if prefixes := sorted({prefix for tensors in _places(content) for prefix in prefixes_of(tensors) if prefix}):
        told = " or ".join(prefixes[:4])
        raise ValueError(
            f"{path} has {wanted}; networks in it have names that begin with {told}: say which one with "
            f"--prefix {prefixes[0]} (prefix= in Python)"
        )
    found = [f"{key} ({', '.join(list(map(str, value))[:3])}, ...)" if isinstance(value, dict) else str(key)
             for key, value in list(content.items())[:8]]  # fmt: skip
    raise ValueError(f"{path} has {wanted}; found {', '.join(found)}. Known: {', '.join(known)}.")


def by_prefix(path: Path, content: dict[str, Any], prefix: str) -> tuple[Layout, Tensors]:
    """The tensors whose names begin with what the user says, with or without its last dot; all others are left out.

    Raises:
        ValueError: there are none.
    """
    prefix = f"{prefix.removesuffix('.')}."
    for tensors in _places(content):
        inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if inside:
            renamed = from_lightly(inside) if "0.weight" in inside else inside
            return replace(BARE, name=f"prefix {prefix}", rename=None), renamed
    raise ValueError(f"{path} has no tensor whose name begins with {prefix}")


def prefixes_of(tensors: Tensors) -> set[str]:
    """What stands before the names of the first layers of networks that take images."""
    first = [(name, end) for end in FIRST_LAYERS for name in tensors if name.endswith(end)]
    images = [(name, end) for name, end in first if tensors[name].ndim == 4 and tensors[name].shape[1] == 3]
    starts = {name.removesuffix(end) for name, end in images}
    return {start for start in starts if not start or re.search(r"[^.\d]\.$", start)}


def _behind_prefix(tensors: Tensors) -> bool:
    """Whether a network is there, but none whose names begin at once."""
    prefixes = prefixes_of(tensors)
    return bool(prefixes) and "" not in prefixes


def _places(content: dict[str, Any]) -> Iterator[Tensors]:
    """All dicts of tensors in a file."""
    yield from filter(None, map(unwrapped, (content, *content.values())))
