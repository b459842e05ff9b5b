"""Milliseconds per view at batch size 1, as in GenCL's Table 4."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor

import sslzoo
import viewgen
from genviews_core.images import read_image
from ssl_eval.view_cost import Timer
from viewgen.cli_options import options_dataclass
from viewgen.keys import key_path


def named_generators(wanted: Sequence[str], rows: Sequence[str], device: str) -> dict[str, viewgen.Generator]:
    """Load the generator of each row that is timed.

    Args:
        wanted: "ROW=GENERATOR --option value ...", with options of `viewgen generate --generator GENERATOR`.
        rows: names of the folders of views.
        device: device of the generators.

    Raises:
        ValueError: the row, the generator or an option does not exist.
    """
    found = {}
    for text in wanted:
        row, _, words = text.partition("=")
        name, *options = shlex.split(words) or [""]
        if row not in rows:
            raise ValueError(
                f"expected --generators 'ROW=GENERATOR --option value', got {text!r}; ROW is one of {', '.join(rows)}"
            )
        kind = options_dataclass(name, without={"device"})
        try:
            chosen = tyro.cli(kind, args=options, prog=name, console_outputs=False)
        except SystemExit as error:
            raise ValueError(
                f"expected options of {name} in --generators, got {text!r}; see viewgen generate --generator {name} "
                "--help"
            ) from error
        values: dict[str, Any] = {item.name: getattr(chosen, item.name) for item in fields(kind)}
        if isinstance(values.get("encoder"), str):  # may be a backbone folder
            values["encoder"] = viewgen.load_encoder(values["encoder"], other=sslzoo.resolve_backbone, device=device)
        found[row] = viewgen.load_generator(name, **values, device=device)
    return found


def maker_of(generator: Any, *, strength: float | None, seed: int) -> Callable[[str, Tensor], Tensor]:
    """Return a function from a key and its decoded image to a view."""
    level = None if strength is None else torch.tensor([strength])

    def make(key: str, image: UInt8[Tensor, "1 3 H W"]) -> UInt8[Tensor, "1 3 H W"]:
        keyed = getattr(generator, "condition_for", None)
        condition = generator.condition(image) if keyed is None else keyed([key], image)
        return generator.generate(condition, seeds=[viewgen.view_seed(seed, key, 0)], strength=level)

    return make


def milliseconds_per_view(
    make: Callable[[str, Tensor], object], images: Path, keys: Iterable[str], *, size: int | None, device: str
) -> float | None:
    """Return the mean over images at batch size 1, without decoding; None if no image can be read."""
    watch = Timer(device)
    for key in keys:
        try:
            image = read_image(key_path(images, key), size)
        except viewgen.UnreadableImage:
            continue
        watch(make, key, image[None])
    return watch.milliseconds
