"""From a tensor of views to the bytes of their files.

Shapes: B views of a batch, H and W their sides in pixels.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

SAVE_OPTIONS = {"png": {"format": "PNG"}, "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0}}


class EncodedView(NamedTuple):
    """A file's bytes, the image's sides in pixels, and the bytes' SHA-256."""

    data: bytes
    width: int
    height: int
    sha256: str


def encode_views(images: UInt8[Tensor, "B 3 H W"], image_format: str, workers: int) -> list[EncodedView]:
    """Encode a batch, on ``workers`` threads if there are more than one."""
    arrays = list(images.permute(0, 2, 3, 1).cpu().numpy())
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(lambda array: _encode(array, image_format), arrays))


def _encode(array: np.ndarray, image_format: str) -> EncodedView:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **SAVE_OPTIONS[image_format])
    data = buffer.getvalue()
    return EncodedView(data, array.shape[1], array.shape[0], sha256(data).hexdigest())
