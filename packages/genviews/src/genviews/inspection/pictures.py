"""Thumbnails and foreground maps as data URIs, to be embedded in an HTML page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from genviews_core.channels import read_preview
from genviews_core.images import UnreadableImage, image_size


def thumbnail(path: Path, side: int) -> str:
    """Return the central square of an image as WebP, at most ``side`` pixels wide.

    Raises:
        viewgen.UnreadableImage: the file cannot be decoded.
    """
    pixels = read_preview(path, min(side, short_side(path, side))).permute(1, 2, 0).numpy()
    return _uri(Image.fromarray(pixels), "webp", quality=80, method=4)


def short_side(path: Path, default: int) -> int:
    """Return the shorter side in pixels, read from the header; ``default`` if that fails."""
    try:
        return min(image_size(path))
    except UnreadableImage:
        return default  # read_image will raise a detailed error


def map_picture(levels: UInt8[np.ndarray, "rows columns"]) -> str:
    """Return a foreground map as a grayscale PNG with one pixel per token; the page scales and colors it."""
    return _uri(Image.fromarray(levels), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"
