"""Random textures for the procedural scenes, each between two colours: float [size, size, 3] in [0, 1]."""

import numpy as np
from PIL import Image

KINDS = ("gradient", "noise", "stripes", "checks", "blobs")


def texture(kind: str, first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A pattern of a kind, running between two RGB colours at a random angle and scale."""
    share = _PATTERNS[kind](size, rng)[..., None]
    grain = rng.normal(0, 0.02, (size, size, 1))
    return np.clip(first + (second - first) * share + grain, 0, 1)


def _along(size: int, rng: np.random.Generator) -> np.ndarray:
    """Distance along a random direction, in units of the image's side."""
    angle = rng.uniform(0, 2 * np.pi)
    place = (np.arange(size) + 0.5) / size - 0.5
    return np.cos(angle) * place[:, None] + np.sin(angle) * place


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(_along(size, rng) + 0.5, 0, 1)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    return _smooth(int(rng.integers(4, 9)), size, rng)


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    return _wave(_along(size, rng), rng)


def _checks(size: int, rng: np.random.Generator) -> np.ndarray:
    place = (np.arange(size) + 0.5) / size
    cells = rng.uniform(2, 6)
    steps = [_soft_square(np.sin(2 * np.pi * (cells / 2 * place + rng.uniform()))) for _ in range(2)]
    return (1 + np.outer(*steps)) / 2


def _blobs(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(4 * (_smooth(int(rng.integers(3, 7)), size, rng) - 0.5) + 0.5, 0, 1)


def _smooth(cells: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Random values on a coarse grid, interpolated."""
    grid = Image.fromarray(rng.random((cells, cells), np.float32))
    return np.clip(np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def _wave(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (1 + _soft_square(np.sin(2 * np.pi * (rng.uniform(2, 6) * distance + rng.uniform())))) / 2


def _soft_square(wave: np.ndarray) -> np.ndarray:
    return np.clip(3 * wave, -1, 1)


_PATTERNS = {"gradient": _gradient, "noise": _noise, "stripes": _stripes, "checks": _checks, "blobs": _blobs}
