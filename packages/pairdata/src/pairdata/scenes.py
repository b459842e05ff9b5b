"""A procedural image set, so that everything can be tried with nothing downloaded.

One object of ten classes before a textured ground. Outline and parts tell the classes apart for certain; as in nature,
each class has habits too (a colour, a ground it is often seen on), which an image keeps or breaks by chance.
"""

import colorsys
import io
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pairdata.scene_shapes import ACCENT, BODY, SHAPES, Shape
from pairdata.scene_textures import KINDS, texture

SCENE_CLASSES = tuple(SHAPES)
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
        ValueError: fewer than one class or more than ten.
    """
    if not 1 <= classes <= len(SCENE_CLASSES):
        raise ValueError(f"classes={classes}: there are 1 to {len(SCENE_CLASSES)}")
    root = Path(root)
    for name in SCENE_CLASSES[:classes]:
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
        (root / "masks" / name).mkdir(parents=True, exist_ok=True)
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
        habit: how often each of the object's colour, the ground's colour and the ground's pattern is the one that
            its class prefers; at 0 they are drawn alike for every class, and outline and parts say all.
    """
    digest = blake2b(f"scene:{seed}:{key}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    name = key.partition("/")[0]
    cover = _cover(SHAPES[name](), size, rng)  # first: the place of the object depends on no size
    kind, colours = _habitat(SCENE_CLASSES.index(name), habit, rng)
    ground, body, accent = [(middle, np.clip(middle + rng.uniform(-0.3, 0.3, 3), 0, 1)) for middle in colours]
    pixels = texture(kind, *ground, size, rng)
    for paint, pair in ((BODY, body), (ACCENT, accent)):
        painted = texture(str(rng.choice(KINDS)), *pair, size, rng)
        pixels += cover[paint][..., None] * (painted - pixels)
    return _image(pixels), _image(np.minimum(cover[BODY] + cover[ACCENT], 1))


def _habitat(number: int, habit: float, rng: np.random.Generator) -> tuple[str, list[np.ndarray]]:
    """The ground's pattern, and the colours of ground, body and accent; the last two stand out from the ground."""
    keeps = rng.random(3) < habit
    kind = KINDS[number % len(KINDS)] if keeps[0] else str(rng.choice(KINDS))
    ground = _near_hue((3 * number % 10 + 0.5) / 10, rng) if keeps[1] else rng.random(3)
    body = _near_hue(number / 10, rng) if keeps[2] else _far_from(ground, rng)
    return kind, [ground, body, _far_from(ground, rng)]


def _near_hue(hue: float, rng: np.random.Generator) -> np.ndarray:
    """A colour of about this hue."""
    return np.array(colorsys.hsv_to_rgb((hue + rng.normal(0, 0.04)) % 1, rng.uniform(0.4, 1), rng.uniform(0.4, 1)))


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(255 * values).astype(np.uint8))


def _far_from(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The farthest of four random colours."""
    candidates = rng.random((4, 3))
    return candidates[np.abs(candidates - colour).sum(1).argmax()]


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
    """Write a PNG under another name and rename it, so that it is whole or not there."""
    data = io.BytesIO()
    image.save(data, "PNG")
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data.getvalue())
    partial.replace(path)
