"""Foreground maps and ratios from the first principal component of an encoder's tokens.

Shapes: b or n images, l tokens of an image, d token width.
"""

import json
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genviews_core.tensor_files import save_tensors
from pairquality.encoder import FeatureEncoder, Triple
from pairquality.score import EPSILON

_FILE_NAMES = {"centered": "centred"}
"""Attributes that have another name in files."""


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """Encoder and data that a PCA was fitted on.

    Attributes:
        encoder: name of the encoder.
        encoder_hash: hash of its weights and normalization.
        size: image size in pixels.
        mean: mean of its normalization.
        std: standard deviation of its normalization.
        data: description of the images.
        images: number of images.
    """

    encoder: str
    encoder_hash: str
    size: int
    mean: Triple
    std: Triple
    data: str
    images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ForegroundPCA:
    """A direction in token space along which foreground tokens are high.

    Attributes:
        direction: unit vector v.
        mean: mean of all tokens.
        threshold: tokens with a greater projection are foreground.
        margin: mean projection of the center minus that of the border, in standard deviations of the projections.
        centered: whether p = (x - mean) . v, or p = x . v as in GenView's code.
        share_foreground: requested fraction of foreground tokens.
        fitted_on: encoder and data; None if fit_pca was given only tokens.
    """

    direction: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    threshold: float
    margin: float
    centered: bool
    share_foreground: float
    fitted_on: FittedOn | None = None

    def project(self, features: Float[Tensor, "n l d"]) -> Float[Tensor, "n l"]:
        """Return the projections p of the tokens, in float32 even under autocast, on the features' device."""
        if features.shape[2] != len(self.direction):
            raise ValueError(
                f"expected tokens of width {len(self.direction)}, got {features.shape[2]}; fit a PCA for this encoder"
            )
        direction = self.direction.to(features.device)
        with torch.autocast(features.device.type, enabled=False):
            projections = features.float() @ direction
            return projections - self.mean.to(features.device) @ direction if self.centered else projections

    def validate_encoder(self, encoder: FeatureEncoder) -> None:
        """Check that the PCA was fitted on this encoder; the image size may differ.

        Raises:
            ValueError: weights or normalization differ, or the PCA does not record its encoder.
        """
        if self.fitted_on is None:
            raise ValueError("the PCA does not record the encoder it was fitted on; fit it with fit_pca(encoder=...)")
        if self.fitted_on.encoder_hash != encoder.hash:
            raise ValueError(
                f"expected the encoder that the PCA was fitted on, {self.fitted_on.encoder} "
                f"({self.fitted_on.encoder_hash}), got {encoder.name} ({encoder.hash}); fit a PCA for this encoder"
            )

    @property
    def hash(self) -> str:
        """Return a hash of all attributes."""
        return _hash(*self._content())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically.

        Raises:
            ValueError: the file cannot be written; an existing file is left unchanged.
        """
        tensors, text = self._content()
        save_tensors(path, tensors, {"foreground_pca": text, "hash": _hash(tensors, text)})

    def _content(self) -> tuple[dict[str, Tensor], str]:
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in ("direction", "mean")}
        numbers = {_FILE_NAMES.get(f.name, f.name): getattr(self, f.name) for f in fields(self)[len(tensors) :]}
        return tensors, json.dumps({**numbers, "fitted_on": self.fitted_on and asdict(self.fitted_on)})

    @classmethod
    def load(cls, path: str | Path, encoder: FeatureEncoder | None = None) -> "ForegroundPCA":
        """Load a file of `save`.

        Args:
            path: the file.
            encoder: encoder that the PCA must have been fitted on; None for any.

        Raises:
            ValueError: it is not such a file, was changed, or belongs to another encoder.
        """
        if not Path(path).is_file():
            raise ValueError(
                f"expected a foreground PCA at {path}, got no file; give the path that ForegroundPCA.save wrote"
            )
        try:
            with safe_open(path, framework="pt") as file:
                text, expected = ((file.metadata() or {})[name] for name in ("foreground_pca", "hash"))
                tensors = {name: file.get_tensor(name) for name in ("direction", "mean")}
        except KeyError as error:
            raise ValueError(f"{path} does not hold a saved foreground PCA (it lacks {error})") from None
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{path} does not hold a saved foreground PCA ({error})") from None
        if _hash(tensors, text) != expected:
            raise ValueError(f"{path} was changed after it was saved; fit the foreground PCA again")
        numbers = json.loads(text)
        fitted_on = numbers.pop("fitted_on")
        names = ("threshold", "margin", "centered", "share_foreground")
        numbers = {name: numbers[_FILE_NAMES.get(name, name)] for name in names}
        found = cls(**tensors, **numbers, fitted_on=fitted_on and _fitted_on(**fitted_on))
        if encoder is not None:
            found.validate_encoder(encoder)
        return found


def _fitted_on(mean: list[float], std: list[float], **others: Any) -> FittedOn:
    """Convert JSON's lists to tuples."""
    return FittedOn(mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]), **others)


def _hash(tensors: dict[str, Tensor], text: str) -> str:
    digest = blake2b(text.encode(), digest_size=16)
    for name, tensor in tensors.items():
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def foreground_maps(pca: ForegroundPCA, features: Float[Tensor, "b l d"]) -> Float[Tensor, "b l"]:
    """Return the soft foreground of each image, m = (p - min p) / (max p - min p + 1e-7) over its tokens, in [0, 1].

    GenView, https://arxiv.org/abs/2403.12003. It is 0 everywhere for an image whose tokens are all equal.
    """
    projections = pca.project(features)
    low, high = projections.aminmax(dim=1, keepdim=True)
    return (projections - low) / (high - low + EPSILON)


@torch.no_grad()
def foreground_ratio(pca: ForegroundPCA, features: Float[Tensor, "b l d"]) -> Float[Tensor, " b"]:
    """Return the fraction of each image's tokens that are foreground, p > threshold."""
    return (pca.project(features) > pca.threshold).float().mean(dim=1)
