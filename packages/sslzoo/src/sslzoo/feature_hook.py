"""Hooks that keep the feature maps computed in a training step.

Shapes: B samples, L tokens of a sample row by row, D channels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslzoo.methods.method import Method

LAYERS = ("layer4", "stages", "norm")
"""The last layers of ResNets of torchvision and timm, of timm's convolutional networks, and of its transformers."""


class FeatureHook:
    """Keep the detached feature maps of one layer from every forward pass until they are popped.

    Register it before torch.compile, which ignores later hooks, and after the method has made its momentum copies, or
    they would have the hook too.

    Args:
        backbone: a network of `create_backbone`, or any network with such a layer.
        layer: name of the submodule whose output is kept: a map Float[B D rows columns], or tokens Float[B P+L D]
            without the first P = backbone.num_prefix_tokens. None: the last feature map.

    Raises:
        ValueError: the layer does not exist.
    """

    def __init__(self, backbone: nn.Module, layer: str | None = None):
        layers = dict(backbone.named_modules())
        wanted = LAYERS if layer is None else (layer,)
        module = next((layers[name] for name in wanted if name in layers), None)
        if module is None:
            own = ", ".join(name for name, _ in backbone.named_children())
            raise ValueError(f"{type(backbone).__name__} has no layer {' or '.join(wanted)}; choose one of: {own}")
        self.prefix = int(getattr(backbone, "num_prefix_tokens", 0))
        self.width = getattr(backbone, "num_features", None)
        self.maps: list[Tensor] = []
        self._handle = module.register_forward_hook(self._keep)

    def pop(self) -> list[Float[Tensor, "_ L D"]]:
        """Return and remove the maps since the last call, one per forward pass, in the dtype of the computation."""
        maps = [self._tokens(output) for output in self.maps]
        self.maps.clear()
        return maps

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()
        self.maps.clear()

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.maps.append(output.detach())

    def _tokens(self, output: Tensor) -> Tensor:
        if output.ndim != 4:
            return output[:, self.prefix :]
        channels_last = output.shape[1] != self.width and output.shape[3] == self.width  # Swin
        return output.flatten(1, 2) if channels_last else output.flatten(2).transpose(1, 2)


class PairFeatureHook:
    """Keep the feature maps of the two global views from the networks of a method.

    Args:
        method: any method; DINO's maps are those of the teacher, MoCo's those of query and key encoder. If MoCo v2
            shuffles keys over ranks, the key maps are gathered and restored to the order of the images in each step.
        layer: see FeatureHook.

    Raises:
        ValueError: the layer does not exist.
    """

    def __init__(self, method: Method, layer: str | None = None):
        first, second = method.pair_backbones
        self._method = method
        self._first = FeatureHook(first, layer)
        self._second = self._first if second is first else FeatureHook(second, layer)

    def clear(self) -> None:
        """Remove all maps; call it before the forward pass."""
        self._first.maps.clear()
        self._second.maps.clear()

    def pop(self) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        """Return and remove the maps of both views; call it when the networks have seen them."""
        maps = self._first.pop()
        if self._second is not self._first:
            maps += self._second.pop()
        assert maps, "the networks have not seen the views yet"
        first, second = torch.cat(maps).chunk(2)
        return first, self._method.in_order(second)

    def close(self) -> None:
        """Remove the hooks."""
        self._first.close()
        self._second.close()
