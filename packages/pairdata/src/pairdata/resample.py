"""Separable linear maps of images as matrix products, Y = R X C^T with one R and one C per image.

On a GPU two batched products over the whole batch cost a few passes over memory, whatever the parameters of each
image; on a CPU they are the fastest way for small images.

Legend: B images, M input size, N output size.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pairdata.augment import Interpolation


def separable(
    images: Float[Tensor, "B C M M"], rows: Float[Tensor, "B N M"], cols: Float[Tensor, "B N M"], clamp: bool = False
) -> Float[Tensor, "B C N N"]:
    """Apply one linear map along the height of each image, and another along its width.

    With `clamp` the width is processed first and clamped to [0, 255], as in PIL, because the cubic may overshoot.
    """
    if clamp:
        return rows[:, None] @ (images @ cols[:, None].mT).clamp_(0, 255)
    return rows[:, None] @ images @ cols[:, None].mT


def resampling(
    start: Float[Tensor, " B"],
    extent: Float[Tensor, " B"],
    input_size: int,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Float[Tensor, "B {size} {input_size}"]:
    """Return matrices that resize [start, start + extent) to `size` samples, antialiased as in PIL.

    A triangle or cubic kernel, as wide as an output sample but at least as an input sample, is evaluated at the input
    samples within the box and normalized (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters).

    Args:
        start: start of the box in input samples.
        extent: its length, in input samples.
        input_size: number of input samples.
        size: number of output samples.
        interpolation: triangle ("bilinear") or cubic ("bicubic") kernel.
    """
    step = (extent / size)[:, None, None]
    middle = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * step
    sample = torch.arange(input_size, device=start.device) + 0.5
    # An input sample counts by the fraction of it inside the box.
    first, last = start[:, None, None], (start + extent)[:, None, None]
    inside = torch.minimum(sample + 0.5, last) - torch.maximum(sample - 0.5, first)
    distance = (sample - middle).abs() / step.clamp(min=1)
    kernel = (1 - distance).clamp_(min=0) if interpolation == "bilinear" else cubic(distance)
    weights = kernel * inside.clamp_(0, 1)
    return weights / weights.sum(-1, keepdim=True)


def cubic(distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Evaluate Keys' kernel with a = -0.5, as in PIL and torch (https://doi.org/10.1109/TASSP.1981.1163711)."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
