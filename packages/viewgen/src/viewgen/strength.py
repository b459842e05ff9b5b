"""Strength schedules: how much each view may differ from its source; constant, random, or by foreground ratio.

GenView compares the three for noise levels of Stable unCLIP (Table 8 of https://arxiv.org/abs/2403.12003); they apply
to any generator, in its own unit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from viewgen.ratios import ForegroundRatios
from viewgen.seeding import generator_for

RATIO_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the five bins; each holds its upper edge
NOISE_LEVELS = (0.0, 100.0, 200.0, 300.0, 400.0)  # GenView's, one per bin


@overload
def noise_level(foreground_ratio: float) -> int: ...
@overload
def noise_level(foreground_ratio: Float[Tensor, "*B"]) -> Int[Tensor, "*B"]: ...
def noise_level(foreground_ratio: float | Float[Tensor, "*B"]) -> int | Int[Tensor, "*B"]:
    """Return GenView's noise level for an image's foreground ratio: little noise if the object is small.

    ``level = 100 max(0, ceil(5 r) - 1)``: [0, 0.2] gives 0, (0.2, 0.4] gives 100, ..., (0.8, 1] gives 400
    (https://arxiv.org/abs/2403.12003). The edges are compared in the ratio's own precision, so 0.2 is 0.2 in float32.

    Raises:
        ValueError: if a ratio is not a number in [0, 1].
    """
    return 100 * _bin(foreground_ratio)


@overload
def _bin(ratio: float) -> int: ...
@overload
def _bin(ratio: Float[Tensor, "*B"]) -> Int[Tensor, "*B"]: ...
def _bin(ratio: float | Float[Tensor, "*B"]) -> int | Int[Tensor, "*B"]:
    """Return the index of the bin, 0 to 4: ``numpy.digitize(ratio, RATIO_EDGES, right=True) - 1``, and 0 for 0."""
    if isinstance(ratio, Tensor):
        if not bool(((ratio >= 0) & (ratio <= 1)).all()):
            raise ValueError("expected foreground ratios in [0, 1], got others")
        inner = torch.tensor(RATIO_EDGES[1:-1], dtype=ratio.dtype, device=ratio.device)
        return (ratio.unsqueeze(-1) > inner).sum(dim=-1)
    if not 0 <= ratio <= 1:
        raise ValueError(f"expected a foreground ratio in [0, 1], got {ratio}")
    return int(np.searchsorted(RATIO_EDGES[1:-1], float(ratio), side="left"))


@runtime_checkable
class Strength(Protocol):
    """A schedule that assigns a strength to every view."""

    def sample(self, key: str, view_seed: int) -> tuple[float, float | None]:
        """Return the strength of a view of the image ``key``, and the image's foreground ratio if known."""
        ...

    def description(self) -> dict[str, Any]:
        """Return the schedule as JSON values; schedules with equal descriptions give equal strengths."""
        ...


@dataclass(frozen=True)
class ConstantStrength:
    """The same strength for every view.

    Attributes:
        value: strength in the generator's unit.
    """

    value: float

    def __post_init__(self) -> None:
        _check_finite((self.value,))

    def sample(self, key: str, view_seed: int) -> tuple[float, None]:
        """Return the same strength for every view; see ``Strength``."""
        return float(self.value), None

    def description(self) -> dict[str, Any]:
        """Description for the manifest; see ``Strength``."""
        return {"law": "constant", "value": float(self.value)}


@dataclass(frozen=True, kw_only=True)
class RandomStrength:
    """A strength drawn uniformly from several levels, from each view's seed.

    Attributes:
        levels: strengths in the generator's unit; by default GenView's noise levels.
    """

    levels: tuple[float, ...] = NOISE_LEVELS

    def __post_init__(self) -> None:
        _check_finite(self.levels)

    def sample(self, key: str, view_seed: int) -> tuple[float, None]:
        """Draw strengths from the views' seeds; see ``Strength``."""
        drawn = torch.randint(len(self.levels), (), generator=generator_for(view_seed, "strength"))
        return float(self.levels[int(drawn)]), None

    def description(self) -> dict[str, Any]:
        """Description for the manifest; see ``Strength``."""
        return {"law": "random", "levels": [float(level) for level in self.levels]}


@dataclass(frozen=True, kw_only=True)
class AdaptiveStrength:
    """A strength that depends on the image's foreground ratio: the i-th of five levels for the i-th fifth of [0, 1].

    Attributes:
        ratios: foreground ratios of all images.
        levels: five strengths in the generator's unit; by default GenView's noise levels, as in ``noise_level``.
    """

    ratios: ForegroundRatios
    levels: tuple[float, ...] = NOISE_LEVELS

    def __post_init__(self) -> None:
        _check_finite(self.levels)
        if len(self.levels) != len(NOISE_LEVELS):
            raise ValueError(
                f"expected {len(NOISE_LEVELS)} levels for adaptive strength, got {len(self.levels)}; give as many"
            )

    def sample(self, key: str, view_seed: int) -> tuple[float, float]:
        """Return strengths by foreground ratio; see ``Strength``.

        Raises:
            ValueError: if the image has no foreground ratio.
        """
        ratio = self.ratios[key]
        return float(self.levels[_bin(ratio)]), ratio

    def description(self) -> dict[str, Any]:
        """Description for the manifest; see ``Strength``."""
        levels = [float(level) for level in self.levels]
        return {"law": "adaptive", "levels": levels, "ratios": self.ratios.hash}


def parse_strength(
    text: str, ratios: ForegroundRatios | None = None, levels: tuple[float, ...] | None = NOISE_LEVELS
) -> Strength:
    """Parse a schedule from a command line.

    Args:
        text: "200" or "constant:200"; "random" or "random:0.5,0.7"; "adaptive" or "adaptive:0.4,0.5,0.6,0.7,0.8".
        ratios: foreground ratios of the images, for "adaptive".
        levels: levels of "random" and "adaptive" without numbers; None if the generator has no default levels.

    Raises:
        ValueError: if the text is invalid, or ratios are given for another schedule or missing for "adaptive".
    """
    kind, colon, values = text.partition(":")
    if not colon and kind not in ("random", "adaptive"):
        kind, values = "constant", text
    if values or colon:
        levels = _numbers(values, text)
    if levels is None:
        raise ValueError(f"expected levels in the generator's unit, got strength {text!r}; write {kind}:A,B,...")
    if (kind == "adaptive") != (ratios is not None):
        raise ValueError(
            f"expected foreground ratios if and only if the strength is adaptive, got strength {text!r}; see --ratios"
        )
    if kind == "constant" and len(levels) == 1:
        return ConstantStrength(levels[0])
    if kind == "random":
        return RandomStrength(levels=levels)
    if kind == "adaptive" and ratios is not None:
        return AdaptiveStrength(ratios=ratios, levels=levels)
    raise _invalid_strength(text)


def _numbers(values: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values.split(","))
    except ValueError:
        raise _invalid_strength(text) from None


def _invalid_strength(text: str) -> ValueError:
    return ValueError(
        f"invalid strength {text!r}: expected a number, random, random:A,B,..., adaptive or adaptive:A,B,C,D,E"
    )


def _check_finite(levels: tuple[float, ...]) -> None:
    if not levels or not all(math.isfinite(level) for level in levels):
        raise ValueError(f"expected one or more finite strengths, got {levels}")


@dataclass(frozen=True)
class PerImageStrength:
    """A strength for each image.

    Attributes:
        by_key: strengths in the generator's unit, by image key.
    """

    by_key: Mapping[str, float]

    def sample(self, key: str, view_seed: int) -> tuple[float, None]:
        """Look up each image's strength; see ``Strength``.

        Raises:
            ValueError: if the image has none.
        """
        if key not in self.by_key:
            raise ValueError(f"expected a strength for every image, got none for {key!r}; add it")
        return float(self.by_key[key]), None

    def description(self) -> dict[str, Any]:
        """Description for the manifest; see ``Strength``."""
        listed = json.dumps(sorted((key, float(value)) for key, value in self.by_key.items()))
        return {"law": "given", "hash": blake2b(listed.encode(), digest_size=16).hexdigest()}


def as_strength(strength: float | Mapping[str, float] | Strength | None) -> Strength | None:
    """Return the schedule for one number, for a number per image, or the schedule itself."""
    if isinstance(strength, Mapping):
        return PerImageStrength(strength)
    return ConstantStrength(float(strength)) if isinstance(strength, int | float) else strength
