"""What losses take from a batch as a whole.

Shapes: D dimensions.
"""

from jaxtyping import Float
from torch import Tensor


def off_diagonal_energy(matrix: Float[Tensor, "D D"]) -> Float[Tensor, ""]:
    """Sum of the squares off the diagonal."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def require_two(images: int, method: str) -> None:
    """One image has neither variance nor negatives: say so in one line."""
    if images < 2:
        raise ValueError(f"{method} compares the images of a batch: give it two or more over all ranks, not {images}.")
