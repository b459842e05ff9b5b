"""One way of saving a network, as the names of its tensors show it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genviews_core.backbones import describe
from sslzoo.official.rename import Tensors

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of saving.

    Attributes:
        name: what it is called here.
        method: what trained the network; None where the file does not show it.
        source: repository, commit and file that the layout was read from.
        licence: of that repository.
        container: under which key of the file the tensors lie; None: the file is the dict of tensors.
        backbone: what the names of the backbone's tensors begin with.
        dropped: what the names of all other tensors begin with: heads, the other branch, queues.
        evidence: beginnings of names, each of which is there in no other layout of the same container.
        rename: from the names after `backbone` to torchvision's.
        mean: of the images' normalisation.
        std: likewise.
        image_size: of its training, in pixels.
        same_padding: the network pads as TensorFlow does.
    """

    name: str
    method: str | None
    source: str
    licence: str
    container: str | None = None
    backbone: str = ""
    dropped: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    rename: Callable[[Tensors], Tensors] | None = None
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    image_size: int = 224
    same_padding: bool = False

    def tensors(self, content: dict[str, Any]) -> Tensors | None:
        """The file's tensors without DistributedDataParallel's "module.", or None where it has another layout."""
        inside = content if self.container is None else content.get(self.container)
        if not isinstance(inside, dict) or not inside or not all(isinstance(t, Tensor) for t in inside.values()):
            return None
        wrapped = all(name.startswith("module.") for name in inside)
        tensors = {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in inside.items()}
        present = all(any(name.startswith(start) for name in tensors) for start in self.evidence)
        return tensors if present else None

    def backbone_of(self, tensors: Tensors) -> Tensors:
        """The backbone's tensors under torchvision's or timm's names.

        Raises:
            ValueError: there are tensors that this layout does not have.
        """
        rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(self.dropped)}
        unknown = [name for name in rest if not name.startswith(self.backbone)]
        if unknown:
            raise ValueError(f"has more than this layout: {describe({'unknown': unknown})}")
        kept = {name.removeprefix(self.backbone): tensor for name, tensor in rest.items()}
        return self.rename(kept) if self.rename else kept
