"""From a network's float pixels to 8-bit views of the side wanted.

Shapes: B images of a batch, H, W their sides in pixels, h, w those of the views.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate


def finished_views(pixels: Float[Tensor, "B 3 H W"], side: int | None) -> UInt8[Tensor, "B 3 h w"]:
    """Pixels in [0, 1], clipped, resized (bicubic, antialiased) before they are rounded, on the CPU.

    Args:
        pixels: what lies outside [0, 1] is clipped.
        side: of the views, in pixels; None keeps the pixels' own.
    """
    pixels = pixels.float().clamp(0, 1)
    if side is not None and pixels.shape[-2:] != (side, side):
        pixels = interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).cpu()
