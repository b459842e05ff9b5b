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
from pairquality.scorers.distill_config import WIDTHS
from pairquality.scorers.scorer import Maps, Stateless, score_tokens


class ScorerNet(nn.Module):
    """A small residual network whose output map is the sum of a linear head on every stage.

    Each stage halves the resolution and then applies its residual blocks. The default has 0.48 billion multiply-adds at
    112 px, 4% of those of a ResNet-50 training step on a view of 224 px.

    Args:
        out: k.
        grid: numbers of rows and columns of the map.
        widths: channels of each stage.
        depths: residual blocks of each stage; by default none in the first and one in the others.
    """

    def __init__(
        self, out: int, grid: tuple[int, int], widths: Sequence[int] = WIDTHS, depths: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.grid = grid
        depths = depths or (0, *(1 for _ in widths[1:]))
        if len(depths) != len(widths):
            raise ValueError(f"expected {len(widths)} depths, one for each width, got {len(depths)}; give as many")
        stages: list[nn.Module] = []
        for wide_in, width, depth in zip((3, *widths), widths, depths, strict=False):
            halved = _Normed(wide_in, width, 2, kernel=4 if not stages else 3)
            stages.append(nn.Sequential(halved, *(_Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(nn.Conv2d(width, out, 1) for width in widths)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b k rows columns"]:
        """Return the map."""
        maps, total = images, None
        for stage, head in zip(self.stages, self.heads, strict=True):
            maps = stage(maps)
            found = _resized(head, maps, self.grid)
            total = found if total is None else total + found
        assert total is not None
        return total


def _resized(head: nn.Module, maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the head's map, resized to the grid; the head is applied at the smaller of the two resolutions."""
    if maps.shape[-1] < grid[1]:
        return interpolate(head(maps), grid, mode="bilinear")
    return head(adaptive_avg_pool2d(maps, grid))


class _Normed(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, wide_in: int, wide_out: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide_in, wide_out, kernel, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(wide_out)

    def forward(self, maps: Tensor) -> Tensor:
        return relu(self.norm(self.conv(maps)), inplace=True)


class _Block(nn.Module):
    """Residual block of two convolutions, initialized to the identity."""

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
    """Metadata of a distilled scorer.

    Attributes:
        encoder: name of the distilled encoder.
        encoder_hash: hash of its weights and normalization.
        pca_hash: hash of the foreground PCA.
        size: image size of the network in pixels.
        mean: mean of its normalization.
        std: standard deviation of its normalization.
        grid: numbers of rows and columns of its map.
        widths: channels of its stages.
        depths: residual blocks of its stages, as in ScorerNet.
        training: configuration and data of its training.
        rank_correlation: Spearman's correlation with the encoder's scores of held-out pairs, for quality, foreground
            and background.
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
    """Score by a small convolutional network on downscaled views.

    Args:
        network: trained network.
        direction: foreground direction in the space of its tokens.
        about: metadata.
        mean: mean of the views' normalization.
        std: standard deviation of the views' normalization.
        autocast: data type in which the network computes; None for float32, even if the caller uses autocast.
    """

    needs_maps = False

    def __init__(
        self,
        network: ScorerNet,
        direction: Float[Tensor, " k"],
        about: ScorerMetadata,
        *,
        mean: Triple,
        std: Triple,
        autocast: torch.dtype | None = None,
    ) -> None:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network = FeatureEncoder(network, about.size, about.mean, about.std, "distilled", autocast=autocast)
        self.pca = direction_pca(direction)
        self.about, self.mean, self.std = about, mean, std

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"], maps: Maps | None = None
    ) -> PairScores:
        """See PairScorer; `maps` are ignored."""
        views = scaled_down(torch.cat([first, second]).float(), self.about.size)
        return score_tokens(self.pca, *self.network(denormalize(views, self.mean, self.std)).chunk(2))

    def to(self, device: str | torch.device) -> "DistilledScorer":
        """Move the network to a device."""
        self.network.to(device)
        return self


def scaled_down(views: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Downscale views by area averaging, or upscale them bilinearly."""
    if views.shape[-2:] == (size, size):
        return views
    larger = min(views.shape[-2:]) >= size
    return interpolate(views, (size, size), mode="area" if larger else "bilinear")


def direction_pca(direction: Float[Tensor, " k"]) -> ForegroundPCA:
    """Return a PCA of which only the direction is used, which is all that maps need."""
    nan = float("nan")
    mean = torch.zeros_like(direction)
    return ForegroundPCA(
        direction=direction, mean=mean, threshold=nan, margin=nan, centered=False, share_foreground=nan
    )


def save_distilled(path: Path, network: ScorerNet, direction: Float[Tensor, " k"], about: ScorerMetadata) -> None:
    """Write a safetensors file atomically.

    Raises:
        ValueError: the file cannot be written; an existing file is left unchanged.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
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
    """Load a scorer that `distill` wrote.

    Args:
        path: the file.
        mean: mean of the views' normalization.
        std: standard deviation of the views' normalization.
        autocast: data type in which the network computes; None for float32.
        device: device of the network.

    Raises:
        ValueError: it is not such a file, or was changed.
    """
    tensors, about = _read(Path(path))
    direction = tensors.pop(DIRECTION)
    network = ScorerNet(len(direction), about.grid, about.widths, about.depths)
    network.load_state_dict(tensors)
    return DistilledScorer(network, direction, about, mean=mean, std=std, autocast=autocast).to(device)


def read_metadata(path: str | Path) -> ScorerMetadata:
    """Return the metadata of a scorer's file.

    Raises:
        ValueError: as `load_distilled` does.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], ScorerMetadata]:
    if not path.is_file():
        raise ValueError(
            f"expected a distilled scorer at {path}, got no file; give the path that `pairquality distill` wrote"
        )
    try:
        with safe_open(path, framework="pt") as file:
            text, expected = (file.metadata()[name] for name in METADATA)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path} does not hold a distilled scorer ({error})") from None
    if _hash(tensors, text) != expected:
        raise ValueError(f"{path} was changed after it was saved; distill the scorer again")
    found = json.loads(text)
    tuples = {name: tuple(found[name]) for name in ("mean", "std", "grid", "widths", "depths")}
    return tensors, ScorerMetadata(**{**found, **tuples})


def _hash(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
