"""From a view to the bytes of its file.

Shapes: H and W are the sides in pixels.
"""

import io
from hashlib import sha256
from typing import NamedTuple

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


def encode_view(image: UInt8[Tensor, "3 H W"], image_format: str) -> EncodedView:
    """The file of one view, "png" or "jpg"."""
    array = image.permute(1, 2, 0).contiguous().cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, **SAVE_OPTIONS[image_format])
    data = buffer.getvalue()
    return EncodedView(data, array.shape[1], array.shape[0], sha256(data).hexdigest())
