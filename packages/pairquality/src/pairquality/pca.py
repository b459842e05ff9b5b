"""The first principal component of an encoder's tokens, which tells foreground from background.

Shapes: n images, l tokens of an image, d token width.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ForegroundPCA:
    """A direction in token space, high on the foreground.

    Attributes:
        direction: unit vector v.
        mean: of all tokens.
        threshold: a token is foreground where its projection is greater.
        margin: mean projection of the centre less that of the border, in standard deviations of the projections.
        centred: p = (x - mean) . v if true, p = x . v (GenView's code) if false.
        share_foreground: of the tokens fitted on, asked for.
    """

    direction: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    threshold: float
    margin: float
    centred: bool
    share_foreground: float

    def project(self, features: Float[Tensor, "n l d"]) -> Float[Tensor, "n l"]:
        """Projections p of the tokens on the direction, in float32 on the features' device."""
        if features.shape[2] != len(self.direction):
            raise ValueError(f"Tokens are {features.shape[2]} wide, but the PCA was fitted on {len(self.direction)}.")
        direction = self.direction.to(features.device)
        projections = features.float() @ direction
        return projections - self.mean.to(features.device) @ direction if self.centred else projections

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file; a reader never sees half of it."""
        path = Path(path)
        unfinished = path.with_name(path.name + ".part")
        numbers = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        save_file({"direction": self.direction, "mean": self.mean}, unfinished, {"foreground_pca": json.dumps(numbers)})
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "ForegroundPCA":
        """Reads what `save` wrote.

        Raises:
            ValueError: not such a file.
        """
        if not Path(path).is_file():
            raise ValueError(f"No foreground PCA at {path}: give the path that ForegroundPCA.save wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                numbers = json.loads(file.metadata()["foreground_pca"])
                return cls(direction=file.get_tensor("direction"), mean=file.get_tensor("mean"), **numbers)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not hold a saved foreground PCA ({error}).") from None
