"""A procedural image set, so that everything can be tried with nothing downloaded.

One object of ten classes before a textured ground. Outline and parts tell the classes apart for certain; as in nature,
each class has habits too (a palette, a ground it is often seen on), which an image keeps or breaks by chance.
"""

import io
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genviews_core.files import atomic_write, make_folder
from pairdata.scene_shapes import ACCENT, BODY, SHAPES, Shape
from pairdata.scene_textures import KINDS, texture

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
    root: str | Path, *, count: int, size: int = 32, seed: int = 0, classes: int = 10, habit: float = 0.5
) -> None:
    """Write `root/images/<class>/<number>.png`, and the objects' masks under `root/masks` by the same names.

    Every image depends on the seed and its own name alone: a larger count adds to a smaller one, and what is there
    already is left as it is. Take another root and another seed for a test set.

    Args:
        root: the folder to write to.
        count: number of images; image i belongs to class i modulo `classes`.
        size: side, pixels.
        seed: of everything drawn.
        classes: number of classes, at most ten.
        habit: see `draw_scene`.

    Raises:
        ValueError: fewer than one class or more than ten, or the files cannot be written.
    """
    if not 1 <= classes <= len(SCENE_CLASSES):
        raise ValueError(f"classes={classes}: there are 1 to {len(SCENE_CLASSES)}")
    root = Path(root)
    for name in SCENE_CLASSES[:classes]:
        make_folder(root / "images" / name)
        make_folder(root / "masks" / name)
    for i in range(count):
        key = f"{SCENE_CLASSES[i % classes]}/{i // classes:06d}.png"
        if (root / "images" / key).exists():
            continue
        image, mask = draw_scene(key, size=size, seed=seed, habit=habit)
        _write(root / "masks" / key, mask)  # the image comes last: where it stands, both do
        _write(root / "images" / key, image)


def draw_scene(key: str, *, size: int = 32, seed: int = 0, habit: float = 0.5) -> tuple[Image.Image, Image.Image]:
    """The scene with this key, `<class>/<number>.png`, and its object's mask (grey, 255 on the object).

    Args:
        key: what is drawn.
        size: side, pixels.
        seed: of everything drawn.
        habit: how often the palette, and how often the ground's pattern, is the one that the class prefers; at 0 both
            are drawn alike for every class, and outline and parts say all.
    """
    digest = blake2b(f"scene:{seed}:{key}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    name = key.partition("/")[0]
    cover = _cover(SHAPES[name](), size, rng)  # first: the place of the object depends on no size
    number = SCENE_CLASSES.index(name)
    palette = PALETTES[number if rng.random() < habit else rng.integers(len(PALETTES))]
    pattern = KINDS[number % len(KINDS) if rng.random() < habit else rng.integers(len(KINDS))]
    ground, body, accent = _shades(palette, rng)
    pixels = texture(pattern, *ground, size, rng)
    for paint, pair in ((BODY, body), (ACCENT, accent)):
        painted = texture(str(rng.choice(KINDS)), *pair, size, rng)
        pixels += cover[paint][..., None] * (painted - pixels)
    return _image(pixels), _image(np.minimum(cover[BODY] + cover[ACCENT], 1))


def _shades(palette: tuple, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two shades each for ground, body and accent, a little off the palette's colours."""
    middles = np.clip(np.array(palette) / 255 + rng.normal(0, 0.05, (3, 3)), 0, 1)
    return [(middle, np.clip(middle + rng.uniform(-0.2, 0.2), 0, 1)) for middle in middles]


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


def _cover(shape: Shape, size: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel body and accent cover, float [2, size, size]: the shape at a random place."""
    angle, mirror = np.radians(rng.uniform(-40, 40)), rng.choice([-1, 1])
    radius = rng.uniform(0.26, 0.46) * size
    across, down = radius * mirror * rng.uniform(0.8, 1), radius * rng.uniform(0.8, 1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = rng.uniform(0.9 * radius, size - 0.9 * radius, 2)
    layers = [Image.new("L", (size * _FINE, size * _FINE)) for _ in (BODY, ACCENT)]
    for points, paint in shape:
        placed = (points * [across, down] @ turn + centre) * _FINE
        outline = [tuple(point) for point in placed.tolist()]
        for number, layer in enumerate(layers):  # a part covers what lies below it, a hole everything
            ImageDraw.Draw(layer).polygon(outline, fill=255 if number == paint else 0)
    return np.stack([np.asarray(layer.reduce(_FINE), np.float32) / 255 for layer in layers])


def _write(path: Path, image: Image.Image) -> None:
    """Write a PNG atomically."""
    data = io.BytesIO()
    image.save(data, "PNG")
    atomic_write(path, data.getvalue(), sync=False)
