"""The feature maps that a training step has computed anyway, for whoever wants to look at them.

Shapes: B samples, L tokens of a sample row by row, D channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.methods.method import Method

LAYERS = ("layer4", "stages", "norm")
"""Where the last map is: the ResNets of torchvision and timm, timm's convolutional networks, its transformers."""


class FeatureTap:
    """Keeps the maps of one layer, detached, from every forward pass until they are taken.

    Put it on before torch.compile, which does not look for hooks that come later; and after the method has made its
    momentum copies, or the copies would have it too.

    Args:
        backbone: of `create_backbone`, or any network with such a layer.
        layer: name of the submodule whose output is kept: a map Float[B D rows columns], or tokens Float[B P+L D] of
            which the first P = backbone.num_prefix_tokens are left out. None: the last map.

    Raises:
        ValueError: there is no such layer.
    """

    def __init__(self, backbone: nn.Module, layer: str | None = None):
        layers = dict(backbone.named_modules())
        wanted = LAYERS if layer is None else (layer,)
        found = next((layers[name] for name in wanted if name in layers), None)
        if found is None:
            own = ", ".join(name for name, _ in backbone.named_children())
            raise ValueError(f"{type(backbone).__name__} has no layer {' or '.join(wanted)}; choose one of: {own}.")
        self.prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        self.width = getattr(backbone, "num_features", None)
        self.maps: list[Tensor] = []
        self._handle = found.register_forward_hook(self._keep)

    def take(self) -> list[Float[Tensor, "_ L D"]]:
        """The maps since the last call, one for each pass, in the type they were computed in."""
        taken = [self._tokens(found) for found in self.maps]
        self.maps.clear()
        return taken

    def close(self) -> None:
        """Let the network alone."""
        self._handle.remove()
        self.maps.clear()

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.maps.append(output.detach())

    def _tokens(self, found: Tensor) -> Tensor:
        if found.ndim != 4:
            return found[:, self.prefix :]
        channels_last = found.shape[1] != self.width and found.shape[3] == self.width  # Swin
        return found.flatten(1, 2) if channels_last else found.flatten(2).transpose(1, 2)


class PairTap:
    """The maps of the two global views, from the networks of the method that have just seen them.

    Args:
        method: any method; DINO's maps are those of the teacher, MoCo's those of query and key encoder. If MoCo v2
            shuffles keys over ranks, the key maps are gathered and restored to the order of the images in each step.
        layer: see FeatureTap.

    Raises:
        ValueError: there is no such layer.
    """

    def __init__(self, method: Method, layer: str | None = None):
        first, second = method.pair_backbones
        self._method = method
        self._first = FeatureTap(first, layer)
        self._second = self._first if second is first else FeatureTap(second, layer)

    def clear(self) -> None:
        """Forget; call it before the forward pass."""
        self._first.maps.clear()
        self._second.maps.clear()

    def take(self) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        """The maps of both views, once the networks have seen them."""
        found = self._first.take()
        if self._second is not self._first:
            found += self._second.take()
        assert found, "the networks have not seen the views yet"
        first, second = torch.cat(found).chunk(2)
        return first, self._method.in_order(second)

    def close(self) -> None:
        """Let the networks alone."""
        self._first.close()
        self._second.close()
