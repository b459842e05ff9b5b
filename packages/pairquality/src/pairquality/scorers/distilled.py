"""Scores by a small network that reproduces a frozen encoder's, and its file.

Shapes: b pairs, h x w pixels of a view, s the side of the network's images.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import interpolate

from genviews_core.tensor_files import save_tensors
from pairquality.encoder import FeatureEncoder, Triple, denormalise
from pairquality.pca import ForegroundPCA
from pairquality.score import PairScores
from pairquality.scorers.scorer import Maps, Stateless, score_tokens
from pairquality.scorers.student import Student

METADATA = ("distilled_scorer", "hash")
DIRECTION = "pca.direction"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a distilled scorer is.

    Attributes:
        encoder: name of the frozen encoder.
        encoder_hash: of its weights and normalisation.
        pca_hash: of the foreground PCA.
        size: side in pixels of the small network's images.
        mean: their normalisation.
        std: the same.
        grid: rows and columns of its map.
        widths: channels of its stages.
        depths: their residual blocks, as Student takes them.
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
        student: Student,
        direction: Float[Tensor, " k"],
        about: About,
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
        return score_tokens(self.pca, *self.network(denormalise(views, self.mean, self.std)).chunk(2))

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
    return ForegroundPCA(direction=direction, mean=mean, threshold=nan, margin=nan, centred=False, share_foreground=nan)


def save_distilled(path: Path, student: Student, direction: Float[Tensor, " k"], about: About) -> None:
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
    student = Student(len(direction), about.grid, about.widths, about.depths)
    student.load_state_dict(tensors)
    return DistilledScorer(student, direction, about, mean=mean, std=std, autocast=autocast).to(device)


def read_about(path: str | Path) -> About:
    """What the scorer of a file is.

    Raises:
        ValueError: as `load_distilled` does.
    """
    return _read(Path(path))[1]


def _read(path: Path) -> tuple[dict[str, Tensor], About]:
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
    return tensors, About(**{**found, **tuples})


def _hash(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
