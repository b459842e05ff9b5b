"""One way of saving a network, as the names of its tensors show it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genviews_core.backbones import describe
from sslzoo.official.rename import Tensors

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Keys under which training scripts keep a network's tensors."""
WRAPPERS = ("module.", "_forward_module.")
"""What DistributedDataParallel and Lightning's strategies put before every name, also twice."""


def unwrapped(content: Any) -> Tensors | None:
    """Tensors by name without what wrappers and torch.compile put into the names, or None for anything else."""
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        return None
    tensors = {str(name).replace("_orig_mod.", ""): tensor for name, tensor in content.items()}
    while wrapper := next((each for each in WRAPPERS if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of saving.

    Attributes:
        name: what it is called here.
        method: what trained the network; None where the file does not show it.
        source: repository, commit and file that the layout was read from.
        licence: of that repository.
        container: under which key of the file the tensors lie; None: the file is the dict of tensors. A layout with
            evidence is also found where its tensors lie under none, or under another usual key.
        backbone: what the names of the backbone's tensors begin with.
        dropped: what the names of all other tensors begin with: heads, the other branch, queues.
        evidence: beginnings of names, each of which is there in no other layout of the same container.
        rename: from the names after `backbone` to torchvision's.
        mean: of the images' normalisation.
        std: likewise.
        image_size: of its training, in pixels.
        same_padding: the network pads as TensorFlow does.
        stem_padding: of a 3x3 first convolution.
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
    stem_padding: int = 1

    def tensors(self, content: dict[str, Any]) -> Tensors | None:
        """The file's tensors without the names of wrappers around the network, or None where it has another layout."""
        inside = content if self.container is None else content.get(self.container)
        places = [inside, content, *map(content.get, CONTAINERS)] if self.evidence else [inside]
        for tensors in filter(None, map(unwrapped, places)):
            if all(any(name.startswith(start) for name in tensors) for start in self.evidence):
                return tensors
        return None

    def backbone_of(self, tensors: Tensors, wanted: Collection[str] = ()) -> Tensors:
        """The backbone's tensors under torchvision's or timm's names.

        Args:
            tensors: the file's.
            wanted: names that the backbone is known to have, which are kept even where this layout drops them.

        Raises:
            ValueError: there are tensors that this layout does not have.
        """
        rest = {name: tensor for name, tensor in tensors.items() if name in wanted or not name.startswith(self.dropped)}
        unknown = [name for name in rest if not name.startswith(self.backbone)]
        if unknown:
            raise ValueError(f"has more than this layout: {describe({'unknown': unknown})}")
        kept = {name.removeprefix(self.backbone): tensor for name, tensor in rest.items()}
        return self.rename(kept) if self.rename else kept
