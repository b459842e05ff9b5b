"""Synthetic scenes for examples and tests: textured shapes on textured backgrounds, in classes."""

import io
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genviews_core.files import atomic_write, make_folder

KINDS = ("gradient", "noise", "stripes", "checks", "blobs")


def texture(kind: str, first: np.ndarray, second: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A pattern of a kind, running between two RGB colors at a random angle and scale."""
    share = _PATTERNS[kind](size, rng)[..., None]
    grain = rng.normal(0, 0.02, (size, size, 1))
    return np.clip(first + (second - first) * share + grain, 0, 1)


def _along(size: int, rng: np.random.Generator) -> np.ndarray:
    """Distance along a random direction, in units of the image's size."""
    angle = rng.uniform(0, 2 * np.pi)
    position = (np.arange(size) + 0.5) / size - 0.5
    return np.cos(angle) * position[:, None] + np.sin(angle) * position


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(_along(size, rng) + 0.5, 0, 1)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    return _smooth(int(rng.integers(4, 9)), size, rng)


def _stripes(size: int, rng: np.random.Generator) -> np.ndarray:
    return _wave(_along(size, rng), rng)


def _checks(size: int, rng: np.random.Generator) -> np.ndarray:
    position = (np.arange(size) + 0.5) / size
    cells = rng.uniform(2, 6)
    steps = [_soft_square(np.sin(2 * np.pi * (cells / 2 * position + rng.uniform()))) for _ in range(2)]
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


BODY, ACCENT, HOLE = 0, 1, 2
Shape = list[tuple[np.ndarray, int]]


def _polygon(*points: tuple[int | float, int | float]) -> np.ndarray:
    return np.array(points, float)


def _ellipse(x: float, y: float, width: float, height: float, begin: int = 0, end: int = 360) -> np.ndarray:
    """The rim of an ellipse with the given half axes, from `begin` to `end` degrees, clockwise as seen."""
    angle = np.radians(np.linspace(begin, end, 32))
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def _arrow() -> Shape:
    return [(_polygon((-1, -0.24), (0.1, -0.24), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.24), (-1, 0.24)), BODY)]


def _crescent() -> Shape:
    return [(_ellipse(0.0, 0.0, 0.95, 0.95), BODY), (_ellipse(0.45, -0.1, 0.75, 0.75), HOLE)]


def _cross() -> Shape:
    return [
        (_polygon((-0.3, -0.95), (0.3, -0.95), (0.3, 0.95), (-0.3, 0.95)), BODY),
        (_polygon((-0.95, -0.3), (0.95, -0.3), (0.95, 0.3), (-0.95, 0.3)), BODY),
    ]


def _fish() -> Shape:
    return [
        (_polygon((0.35, 0), (1, -0.65), (0.85, 0), (1, 0.65)), ACCENT),
        (_polygon((-0.3, -0.4), (0.3, -0.85), (0.35, -0.3)), ACCENT),
        (_ellipse(-0.2, 0.0, 0.78, 0.5), BODY),
        (_ellipse(-0.6, -0.12, 0.13, 0.13), HOLE),
    ]


def _flower() -> Shape:
    angles = np.radians(np.arange(5) * 72 - 90)
    petals: Shape = [(_ellipse(0.58 * np.cos(a), 0.58 * np.sin(a), 0.36, 0.36), BODY) for a in angles]
    return [*petals, (_ellipse(0.0, 0.0, 0.36, 0.36), ACCENT)]


def _heart() -> Shape:
    turn = np.linspace(0, 2 * np.pi, 40)
    x = np.sin(turn) ** 3
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
    return [(np.stack([x, y], 1), BODY)]


def _house() -> Shape:
    return [
        (_polygon((-0.68, -0.1), (0.68, -0.1), (0.68, 0.9), (-0.68, 0.9)), BODY),
        (_polygon((-0.98, -0.08), (0, -0.95), (0.98, -0.08)), ACCENT),
        (_polygon((-0.22, 0.3), (0.22, 0.3), (0.22, 0.9), (-0.22, 0.9)), HOLE),
    ]


def _mushroom() -> Shape:
    return [
        (_polygon((-0.25, 0), (0.25, 0), (0.36, 0.92), (-0.36, 0.92)), ACCENT),
        (_ellipse(0.0, 0.12, 0.98, 0.98, 180, 360), BODY),
    ]


def _ring() -> Shape:
    return [(_ellipse(0.0, 0.0, 0.95, 0.95), BODY), (_ellipse(0.0, 0.0, 0.5, 0.5), HOLE)]


def _star() -> Shape:
    angle = np.radians(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), BODY)]


SHAPES: dict[str, Callable[[], Shape]] = {
    "arrow": _arrow,
    "crescent": _crescent,
    "cross": _cross,
    "fish": _fish,
    "flower": _flower,
    "heart": _heart,
    "house": _house,
    "mushroom": _mushroom,
    "ring": _ring,
    "star": _star,
}


SCENE_CLASSES = tuple(SHAPES)
PALETTES = (  # ground, body, accent: one that each class prefers and any class may wear
    ((38, 70, 83), (233, 196, 106), (231, 111, 81)),
    ((20, 33, 61), (252, 236, 190), (252, 163, 17)),
    ((241, 250, 238), (69, 123, 157), (230, 57, 70)),
    ((142, 202, 230), (2, 48, 71), (251, 133, 0)),
    ((88, 129, 87), (218, 215, 205), (52, 78, 65)),
    ((255, 205, 178), (109, 104, 117), (181, 131, 141)),
    ((188, 108, 37), (254, 250, 224), (96, 56, 19)),
    ((224, 170, 255), (90, 24, 154), (255, 214, 10)),
    ((53, 57, 61), (173, 181, 189), (255, 183, 3)),
    ((0, 109, 119), (255, 221, 210), (226, 149, 120)),
)
_FINE = 4  # shapes are drawn so many times larger, for smooth edges


def write_scenes(
    root: str | Path,
    *,
    count: int,
    size: int = 32,
    seed: int = 0,
    classes: int = 10,
    habit: float = 0.5,
    plain: bool = False,
) -> None:
    """Write `root/images/<class>/<number>.png`, and the objects' masks under `root/masks` by the same names.

    Every image depends on the seed and its own name alone: a larger count adds to a smaller one, and what is there
    already is left as it is. Take another root and another seed for a test set.

    Args:
        root: the folder to write to.
        count: number of images; image i belongs to class i modulo `classes`.
        size: height and width, pixels.
        seed: seed of all random draws.
        classes: number of classes, at most ten.
        habit: see `draw_scene`.
        plain: see `draw_scene`.

    Raises:
        ValueError: fewer than one class or more than ten, or the files cannot be written.
    """
    if not 1 <= classes <= len(SCENE_CLASSES):
        raise ValueError(f"expected 1 to {len(SCENE_CLASSES)} classes, got {classes}")
    root = Path(root)
    for name in SCENE_CLASSES[:classes]:
        make_folder(root / "images" / name)
        make_folder(root / "masks" / name)
    for i in range(count):
        key = f"{SCENE_CLASSES[i % classes]}/{i // classes:06d}.png"
        if (root / "images" / key).exists():
            continue
        image, mask = draw_scene(key, size=size, seed=seed, habit=habit, plain=plain)
        _write(root / "masks" / key, mask)  # the image is written last: if it exists, both do
        _write(root / "images" / key, image)


def draw_scene(
    key: str, *, size: int = 32, seed: int = 0, habit: float = 0.5, plain: bool = False
) -> tuple[Image.Image, Image.Image]:
    """The scene with this key, `<class>/<number>.png`, and its object's mask (gray, 255 on the object).

    Args:
        key: name of the scene, `<class>/<number>.png`.
        size: height and width, pixels.
        seed: seed of all random draws.
        habit: how often the palette, and how often the ground's pattern, is the one that the class prefers; at 0 both
            are drawn alike for every class, and outline and parts say all.
        plain: whether every ground is a gradient, without a pattern.
    """
    digest = blake2b(f"scene:{seed}:{key}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    name = key.partition("/")[0]
    cover = _cover(SHAPES[name](), size, rng)  # first: the position does not depend on the size
    number = SCENE_CLASSES.index(name)
    palette = PALETTES[number if rng.random() < habit else rng.integers(len(PALETTES))]
    pattern = KINDS[number % len(KINDS) if rng.random() < habit else rng.integers(len(KINDS))]
    ground, body, accent = _shades(palette, rng)
    pixels = texture("gradient" if plain else pattern, *ground, size, rng)
    for paint, pair in ((BODY, body), (ACCENT, accent)):
        painted = texture(str(rng.choice(KINDS)), *pair, size, rng)
        pixels += cover[paint][..., None] * (painted - pixels)
    return _image(pixels), _image(np.minimum(cover[BODY] + cover[ACCENT], 1))


def _shades(palette: tuple, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two shades each for ground, body and accent, a little off the palette's colors."""
    middles = np.clip(np.array(palette) / 255 + rng.normal(0, 0.05, (3, 3)), 0, 1)
    return [(middle, np.clip(middle + rng.uniform(-0.2, 0.2), 0, 1)) for middle in middles]


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


def _cover(shape: Shape, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return how much of each pixel body and accent cover, float [2, size, size]: the shape at a random position."""
    angle, mirror = np.radians(rng.uniform(-40, 40)), rng.choice([-1, 1])
    radius = rng.uniform(0.26, 0.46) * size
    across, down = radius * mirror * rng.uniform(0.8, 1), radius * rng.uniform(0.8, 1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = rng.uniform(0.9 * radius, size - 0.9 * radius, 2)
    layers = [Image.new("L", (size * _FINE, size * _FINE)) for _ in (BODY, ACCENT)]
    for points, paint in shape:
        placed = (points * [across, down] @ turn + center) * _FINE
        outline = [tuple(point) for point in placed.tolist()]
        for number, layer in enumerate(layers):  # a part covers what lies below it, a hole everything
            ImageDraw.Draw(layer).polygon(outline, fill=255 if number == paint else 0)
    return np.stack([np.asarray(layer.reduce(_FINE), np.float32) / 255 for layer in layers])


def _write(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    data = io.BytesIO()
    image.save(data, "PNG")
    atomic_write(path, data.getvalue(), sync=False)
