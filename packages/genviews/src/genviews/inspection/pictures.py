"""Small pictures as data URIs: nothing of the page lies outside it."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import viewgen
from genviews_core.images import UnreadableImage, image_size


def thumbnail(path: Path, side: int) -> str:
    """The central square of an image as WebP, at most ``side`` pixels wide.

    Raises:
        viewgen.UnreadableImage: naming the file and what is wrong with it.
    """
    pixels = viewgen.read_image(path, min(side, short_side(path, side))).permute(1, 2, 0).numpy()
    return _uri(Image.fromarray(pixels), "webp", quality=80, method=4)


def short_side(path: Path, otherwise: int) -> int:
    """The shorter side in pixels, from the file's head; ``otherwise`` where that does not say."""
    try:
        return min(image_size(path))
    except UnreadableImage:
        return otherwise  # read_image says what is wrong, if anything


def map_picture(levels: UInt8[np.ndarray, "rows columns"]) -> str:
    """A foreground map as a grey PNG with a pixel a token; the page enlarges and colours it."""
    return _uri(Image.fromarray(levels), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"
