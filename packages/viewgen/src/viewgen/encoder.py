"""Encoders: networks that turn images into embeddings, behind one uint8 interface.

Shapes: B images of a batch, C their channels, H and W their height and width in pixels, D the embedding's length.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genviews_core.backbones import (
    backbone_hash,
    build_described,
    images_of,
    is_backbone_folder,
    load_timm,
    read_description,
)
from genviews_core.channels import RGB, ranges_of
from genviews_core.pixel_range import Range
from viewgen.generator import Generator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PerChannel = tuple[float, ...]


class ImageEncoder:
    """A frozen network that maps uint8 images to embeddings.

    Args:
        module: network that takes normalized float images and returns one vector per image.
        size: size of its square inputs in pixels.
        mean: mean per channel of images in [0, 1]; its length is the number of channels.
        std: standard deviation per channel of images in [0, 1].
        value_range: for other than three channels: values mapped to 0 and 255 in images of more than 8 bits, low and
            high of all channels or of each; None for the range of each channel of an image.
        name: name recorded in manifests and caches.
        supervision: the strongest human supervision used to train its weights.
        device: device of the network.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        size: int,
        mean: PerChannel = IMAGENET_MEAN,
        std: PerChannel = IMAGENET_STD,
        value_range: Range | None = None,
        name: str = "encoder",
        supervision: Literal["none", "labels", "captions"] = "none",
        device: str | torch.device = "cpu",
    ) -> None:
        self.module = module.eval().to(device)
        self.size, self.mean, self.std, self.value_range = size, mean, std, value_range
        self.name, self.supervision = name, supervision
        self.device = torch.device(device)
        self.hash = backbone_hash(module)

    @property
    def channels(self) -> int:
        """Number of channels of its images."""
        return len(self.mean)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Embed images, resized (bicubic, antialiased) to the encoder's size if needed."""
        values = images.to(self.device).float() / 255
        if values.shape[-2:] != (self.size, self.size):
            values = interpolate(values, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(each, device=self.device).view(-1, 1, 1) for each in (self.mean, self.std))
        self.module.eval()
        vectors = self.module((values - mean) / std)
        if vectors.ndim != 2:
            raise ValueError(
                f"expected one vector per image from the encoder {self.name}, got shape {tuple(vectors.shape)}"
            )
        return vectors.float()


def load_encoder(
    name: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    value_range: Range | None = None,
    supervision: Literal["none", "labels", "captions"] | None = None,
    device: str | torch.device = "cpu",
    other: Callable[[str], tuple[nn.Module, dict[str, Any]]] | None = None,
) -> ImageEncoder:
    """Load a pretrained encoder by name; its pooled features are the embedding.

    Args:
        name: "timm/<model>", for example "timm/resnet50.a1_in1k"; a backbone folder, with backbone.json and
            backbone.safetensors; or a name that ``other`` accepts.
        size: input size in pixels; by default the model's own.
        channels: channels of the images; by default the model's own. timm models are adapted to others.
        value_range: see ``ImageEncoder``; by default that of the backbone folder.
        supervision: supervision of its training. By default "labels" for timm, which does not record it; for a
            backbone folder "labels" if the method in backbone.json is "labels", otherwise "none".
        device: device to run on.
        other: loads other names, as ``sslzoo.resolve_backbone`` does official checkpoints; returns the network and the
            arguments ``size``, ``mean`` and ``std`` of ``ImageEncoder``. Such encoders count as self-supervised.

    Raises:
        ValueError: if the name is none of these, the weights cannot be loaded, or the encoder takes images of another
            number of channels.
    """
    known: Literal["none", "labels"] = "none"
    if name.startswith("timm/"):
        (module, images), known = load_timm(name.removeprefix("timm/"), size=size, channels=channels or 3), "labels"
    elif is_backbone_folder(name):
        about = read_description(name)
        module, images = build_described(about), images_of(about)
        known = "labels" if about.method == "labels" else "none"
    elif other is not None:
        module, images = other(name)
    else:
        raise ValueError(f"expected timm/<model> or a folder with backbone.json, got encoder {name!r}")
    images = images if size is None else {**images, "size": size}
    own = len(images["mean"])
    if channels is not None and channels != own:
        raise ValueError(
            f"expected an encoder of images of {channels} channels, got {name} of {own}; leave channels out"
        )
    ranges_of(value_range, own)
    if value_range is not None and own != RGB:
        images = {**images, "value_range": value_range}
    return ImageEncoder(module, name=name, supervision=supervision or known, device=device, **images)


class ConditionEncoder:
    """A generator as an encoder for ``embed_images``: the embeddings are the generator's conditions.

    Args:
        generator: generator whose conditions are one vector of real numbers per image.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator: Any = generator
        self.channels: int = getattr(generator, "channels", RGB)
        self.value_range: Range | None = getattr(generator, "value_range", None)
        self.mean, self.std = (0.0,) * self.channels, (1.0,) * self.channels
        self.name = f"conditions of {getattr(generator, 'model_id', type(generator).__name__)}"
        self.hash: str = getattr(generator, "encoder_hash", None) or generator.model_hash
        self.supervision = generator.supervision
        self.size: int | None = getattr(generator, "input_size", None)
        self.prepare = getattr(generator, "prepare", None)

    def __call__(self, images: Tensor) -> Float[Tensor, "B D"]:
        """Return the conditions of images, or of prepared images if the generator has ``prepare``.

        Raises:
            ValueError: if they are not vectors of real numbers.
        """
        generator = self._generator
        made = generator.condition(images) if self.prepare is None else generator.encode(images)
        if made.ndim != 2 or not made.is_floating_point():
            raise ValueError(
                f"expected vectors as conditions, got {self.name}, which cannot be cached; "
                "run viewgen generate directly"
            )
        return made.to(torch.float32)
