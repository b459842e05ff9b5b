"""The network of the distilled scorer: a small residual one.

Shapes: b images of s x s pixels, k channels of the map.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, relu

WIDTHS = (32, 96, 192, 384)


class Student(nn.Module):
    """Images to a small map, to which every stage adds what it sees.

    Each stage halves the resolution, then come its residual blocks. With the default widths and depths 0.48 billion
    multiply-adds at 112 px, a twenty-fifth of those of ResNet-50's training step on a view of 224 px.

    Args:
        out: k.
        grid: rows and columns of the map.
        widths: channels of each stage.
        depths: residual blocks of each stage; one in each but the first if left out.
    """

    def __init__(
        self, out: int, grid: tuple[int, int], widths: Sequence[int] = WIDTHS, depths: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.grid = grid
        depths = depths or (0, *(1 for _ in widths[1:]))
        if len(depths) != len(widths):
            raise ValueError(f"{len(depths)} depths for {len(widths)} widths: give one for each stage.")
        stages: list[nn.Module] = []
        for wide_in, width, depth in zip((3, *widths), widths, depths, strict=False):
            halved = _Normed(wide_in, width, 2, kernel=4 if not stages else 3)
            stages.append(nn.Sequential(halved, *(_Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(nn.Conv2d(width, out, 1) for width in widths)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b k rows columns"]:
        """The map."""
        maps, total = images, None
        for stage, head in zip(self.stages, self.heads, strict=True):
            maps = stage(maps)
            found = _resized(head, maps, self.grid)
            total = found if total is None else total + found
        assert total is not None
        return total


def _resized(head: nn.Module, maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """The head's map on the grid; the head itself looks at the smaller of the two."""
    if maps.shape[-1] < grid[1]:
        return interpolate(head(maps), grid, mode="bilinear")
    return head(adaptive_avg_pool2d(maps, grid))


class _Normed(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, wide_in: int, wide_out: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide_in, wide_out, kernel, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(wide_out)

    def forward(self, maps: Tensor) -> Tensor:
        return relu(self.norm(self.conv(maps)), inplace=True)


class _Block(nn.Module):
    """Two convolutions around a shortcut; it begins as the shortcut alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Normed(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, maps: Tensor) -> Tensor:
        return relu(maps + self.norm(self.second(self.first(maps))))
