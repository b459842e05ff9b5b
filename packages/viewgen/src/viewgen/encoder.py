"""Any network that turns images into vectors, with what its inputs must look like.

Shapes: B images of a batch, H and W their height and width in pixels, D the embedding's length.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]


class ImageEncoder:
    """A frozen network images -> Float[B, D] behind one uint8 interface.

    Args:
        module: the network; it takes normalised float images and returns one vector per image.
        size: the side in pixels of its square inputs.
        mean: per channel, on [0, 1] images.
        std: per channel, on [0, 1] images.
        name: what manifests and caches call it.
        supervision: the strongest human supervision behind its weights.
        device: where it runs.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        size: int,
        mean: Triple = IMAGENET_MEAN,
        std: Triple = IMAGENET_STD,
        name: str = "encoder",
        supervision: Literal["none", "labels", "captions"] = "none",
        device: str | torch.device = "cpu",
    ) -> None:
        self.module = module.eval().to(device)
        self.size, self.mean, self.std = size, mean, std
        self.name, self.supervision = name, supervision
        self.device = torch.device(device)
        self.hash = module_hash(module)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Embed images; they are resized (bicubic, antialiased) if they are not of the encoder's size."""
        values = images.to(self.device).float() / 255
        if values.shape[-2:] != (self.size, self.size):
            values = interpolate(values, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(triple, device=self.device).view(3, 1, 1) for triple in (self.mean, self.std))
        self.module.eval()
        vectors = self.module((values - mean) / std)
        if vectors.ndim != 2:
            raise ValueError(f"the encoder {self.name} must give one vector per image, but gave {tuple(vectors.shape)}")
        return vectors.float()


def module_hash(module: nn.Module) -> str:
    """A hash of all parameters and buffers: their names, types, shapes and bytes."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_encoder(
    name: str,
    *,
    size: int | None = None,
    supervision: Literal["none", "labels", "captions"] = "labels",
    device: str | torch.device = "cpu",
    other: Callable[[str], tuple[nn.Module, dict[str, Any]]] | None = None,
) -> ImageEncoder:
    """A pretrained encoder by name, its pooled features as the embedding.

    Args:
        name: "timm/<model>", for example "timm/resnet50.a1_in1k"; or what ``other`` knows.
        size: the side of its inputs; without it the model's own.
        supervision: what its weights were trained with; timm does not say, so say "none" for self-supervised ones.
        device: where it runs.
        other: opens what does not begin with "timm/", as ``sslzoo.open_backbone`` does its folders: the network, and
            what ``ImageEncoder`` is to know of it (size, mean, std). Such encoders count as self-supervised.

    Raises:
        ValueError: if the name does not begin with "timm/" or timm does not know it.
    """
    import timm  # takes seconds, and most encoders are the user's own
    from timm.data.config import resolve_model_data_config

    library, _, model = name.partition("/")
    if other is not None and library != "timm":
        module, about = other(name)
        return ImageEncoder(module, name=name, device=device, **(about if size is None else {**about, "size": size}))
    if library != "timm" or not timm.is_model(model):
        raise ValueError(f"unknown encoder {name!r}: write timm/<model>, with a model that timm.list_models() names")
    module = timm.create_model(model, pretrained=True, num_classes=0)
    data = resolve_model_data_config(module)
    return ImageEncoder(
        module,
        size=size or data["input_size"][-1],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        name=name,
        supervision=supervision,
        device=device,
    )
