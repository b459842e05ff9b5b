"""Checkpoint layouts: how a repository names the tensors in its files."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genviews_core.backbones import describe
from sslzoo.official.rename import Tensors

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Keys under which training scripts save the state dict of a network."""
WRAPPERS = ("module.", "_forward_module.")
"""Name prefixes added by DistributedDataParallel and Lightning strategies, possibly repeated."""


def unwrapped(content: Any) -> Tensors | None:
    """Strip the prefixes of wrappers and torch.compile from a state dict; return None for other content."""
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        return None
    tensors = {str(name).replace("_orig_mod.", ""): tensor for name, tensor in content.items()}
    while wrapper := next((each for each in WRAPPERS if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checkpoint layout.

    Attributes:
        name: name of the layout.
        method: method that trained the network; None if the file does not show it.
        source: repository, commit and file that define the layout.
        licence: licence of that repository.
        container: key of the state dict in the file; None: the file is the state dict. A layout with `evidence` is also
            recognized without a container or under another common key.
        backbone: prefix of the names of the backbone's tensors.
        dropped: prefixes of the names of ignored tensors: heads, the other branch, queues.
        evidence: name prefixes that all must occur, and that no other layout of the same container has.
        rename: maps the names after the `backbone` prefix to torchvision's or timm's.
        mean: normalization mean of the images.
        std: normalization standard deviation of the images.
        image_size: size of the training images in pixels.
        same_padding: whether the network pads like TensorFlow.
        stem_padding: padding of a 3x3 first convolution.
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
        """Return the unwrapped state dict, or None if the file has another layout."""
        inside = content if self.container is None else content.get(self.container)
        places = [inside, content, *map(content.get, CONTAINERS)] if self.evidence else [inside]
        for tensors in filter(None, map(unwrapped, places)):
            if all(any(name.startswith(start) for name in tensors) for start in self.evidence):
                return tensors
        return None

    def backbone_of(self, tensors: Tensors, wanted: Collection[str] = ()) -> Tensors:
        """Return the tensors of the backbone with torchvision's or timm's names.

        Args:
            tensors: tensors of the file.
            wanted: names known to belong to the backbone, which are kept even if they match `dropped`.

        Raises:
            ValueError: a tensor matches neither `backbone` nor `dropped`.
        """
        rest = {name: tensor for name, tensor in tensors.items() if name in wanted or not name.startswith(self.dropped)}
        unknown = [name for name in rest if not name.startswith(self.backbone)]
        if unknown:
            raise ValueError(f"has more than this layout: {describe({'unknown': unknown})}")
        kept = {name.removeprefix(self.backbone): tensor for name, tensor in rest.items()}
        return self.rename(kept) if self.rename else kept
