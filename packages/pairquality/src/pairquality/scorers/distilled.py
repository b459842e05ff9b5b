"""A small network that reproduces a frozen encoder's scores, and its file.

Shapes: b pairs (or images), h x w pixels of a view, s the size of the network's images, k channels of its map.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, relu

from genviews_core.tensor_files import save_tensors
from pairquality.encoder import FeatureEncoder, Triple, denormalize
from pairquality.foreground import ForegroundPCA
from pairquality.score import PairScores
from pairquality.scorers.scorer import Maps, Stateless, score_tokens

WIDTHS = (32, 96, 192, 384)


class ScorerNet(nn.Module):
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


METADATA = ("distilled_scorer", "hash")
DIRECTION = "pca.direction"


@dataclass(frozen=True, kw_only=True)
class ScorerMetadata:
    """What a distilled scorer is.

    Attributes:
        encoder: name of the frozen encoder.
        encoder_hash: of its weights and normalization.
        pca_hash: of the foreground PCA.
        size: side in pixels of the small network's images.
        mean: their normalization.
        std: the same.
        grid: rows and columns of its map.
        widths: channels of its stages.
        depths: their residual blocks, as ScorerNet takes them.
        training: how it was trained, and on what.
        rank_correlation: Spearman's, with the encoder's scores of held-out pairs: quality, foreground, background.
    """

    encoder: str
    encoder_hash: str
    pca_hash: str
    size: int
    mean: Triple
    std: Triple
    grid: tuple[int, int]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    training: dict[str, Any]
    rank_correlation: dict[str, float]


class DistilledScorer(Stateless):
    """Scores by a small convolutional network; views are scaled down to its size first.

    Args:
        student: trained.
        direction: of the foreground, in the space of its tokens.
        about: what it is.
        mean: what the trainer subtracts from images in [0, 1].
        std: what it divides by.
        autocast: the type it computes in; float32 if None, also where the caller autocasts.
    """

    needs_maps = False

    def __init__(
        self,
        student: ScorerNet,
        direction: Float[Tensor, " k"],
        about: ScorerMetadata,
        *,
        mean: Triple,
        std: Triple,
        autocast: torch.dtype | None = None,
    ) -> None:
        student = student.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network = FeatureEncoder(student, about.size, about.mean, about.std, "distilled", autocast=autocast)
        self.pca = direction_pca(direction)
        self.about, self.mean, self.std = about, mean, std

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; `maps` are of no use here."""
        views = scaled_down(torch.cat([first, second]).float(), self.about.size)
        return score_tokens(self.pca, *self.network(denormalize(views, self.mean, self.std)).chunk(2))

    def to(self, device: str | torch.device) -> "DistilledScorer":
        """Moves there."""
        self.network.to(device)
        return self


def scaled_down(views: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Means over areas; smaller views are scaled up bilinearly."""
    if views.shape[-2:] == (size, size):
        return views
    larger = min(views.shape[-2:]) >= size
    return interpolate(views, (size, size), mode="area" if larger else "bilinear")


def direction_pca(direction: Float[Tensor, " k"]) -> ForegroundPCA:
    """A PCA of which maps need the direction alone."""
    nan = float("nan")
    mean = torch.zeros_like(direction)
    return ForegroundPCA(
        direction=direction, mean=mean, threshold=nan, margin=nan, centered=False, share_foreground=nan
    )


def save_distilled(path: Path, student: ScorerNet, direction: Float[Tensor, " k"], about: ScorerMetadata) -> None:
    """Write a safetensors file atomically.

    Raises:
        ValueError: the file cannot be written; an existing file is left unchanged.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    tensors[DIRECTION] = direction.detach().cpu().contiguous()
    text = json.dumps(asdict(about))
    save_tensors(path, tensors, dict(zip(METADATA, (text, _hash(tensors, text)), strict=True)))


def load_distilled(
    path: str | Path,
    *,
    mean: Triple,
    std: Triple,
    autocast: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> DistilledScorer:
    """Reads what `distill` wrote.

    Args:
        path: the file.
        mean: what the trainer subtracts from images in [0, 1].
        std: what it divides by.
        autocast: the type it computes in; float32 if None.
        device: where it runs.

    Raises:
        ValueError: not such a file, or changed since.
    """
    tensors, about = _read(Path(path))
    direction = tensors.pop(DIRECTION)
    student = ScorerNet(len(direction), about.grid, about.widths, about.depths)
    student.load_state_dict(tensors)
    return DistilledScorer(student, direction, about, mean=mean, std=std, autocast=autocast).to(device)


def read_metadata(path: str | Path) -> ScorerMetadata:
    """What the scorer of a file is.

    Raises:
        ValueError: as `load_distilled` does.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], ScorerMetadata]:
    if not path.is_file():
        raise ValueError(f"No distilled scorer at {path}: give the path that `pairquality distill` wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            text, expected = (file.metadata()[name] for name in METADATA)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path} does not hold a distilled scorer ({error}).") from None
    if _hash(tensors, text) != expected:
        raise ValueError(f"{path} was changed after it was saved: distil the scorer again.")
    found = json.loads(text)
    tuples = {name: tuple(found[name]) for name in ("mean", "std", "grid", "widths", "depths")}
    return tensors, ScorerMetadata(**{**found, **tuples})


def _hash(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
