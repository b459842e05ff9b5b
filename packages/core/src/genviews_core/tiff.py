"""Detect TIFF files that Pillow would read only in part, and reject them."""

import os
from pathlib import Path
from typing import Any

from PIL import Image

_NEW_SUBFILE_TYPE, _SAMPLES, _BITS, _PLANES, _EXTRA = 254, 277, 258, 284, 338
_ALPHA = {1, 2}  # associated, unassociated
UNKNOWN_KIND = (
    "a kind of TIFF that Pillow does not know: save it as gray, RGB or RGBA of 8 or 16 bits a channel, or give its "
    "number of --channels"
)
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(source: str | os.PathLike[str] | bytes) -> bool:
    """Return whether a file begins with a TIFF signature."""
    if isinstance(source, bytes):
        return source[:4] in _SIGNATURES
    with Path(source).open("rb") as file:
        return file.read(4) in _SIGNATURES


def check_supported(image: Image.Image) -> None:
    """Raise for a TIFF of 2 or more than 4 channels, or whose pages are the channels or slices of one image.

    Pillow silently reads the first channel, or as many as it supports.

    Raises:
        ValueError: Pillow would read the file only in part.
    """
    tags: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    samples, extra = tags.get(_SAMPLES, 1), tuple(tags.get(_EXTRA, ()))
    gray_and_alpha = samples == 2 and extra[:1] and extra[0] in _ALPHA
    if samples not in (1, 3, 4) and not gray_and_alpha:
        raise ValueError(f"expected 1, 3 or 4 channels, got {samples}; save the ones to learn from, or give --channels")
    if samples == 4 and len(extra) == 3:
        raise ValueError("expected gray, RGB, RGBA or CMYK, got 4 gray channels; save three, or give --channels 4")
    bits = tags.get(_BITS, (1,))
    if samples > 1 and max(bits) > 8 and tags.get(_PLANES, 1) == 2:
        raise ValueError("expected interleaved channels, got 16-bit channels in separate planes; save it interleaved")
    if samples == 1 and max(bits) > 1 and _is_stack(image):
        raise ValueError("expected one image, got several gray pages, channels or slices; save one image per file")


def _is_stack(image: Any) -> bool:
    """Return whether the second page is an image like the first, and not a reduced version of it for previews."""
    size, mode = image.size, image.mode
    try:
        image.seek(1)
        return image.size == size and image.mode == mode and not image.tag_v2.get(_NEW_SUBFILE_TYPE, 0) & 1
    except Exception:  # no second page, or one that Pillow cannot read
        return False
    finally:
        image.seek(0)
