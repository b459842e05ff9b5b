"""What to train and how: each recipe is a function that returns a frozen `Recipe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import tyro

from pairdata import Augment
from sslzoo.methods import DINO, GenDINO, Method, MoCoV2, SimSiam

METHODS: dict[str, Callable[..., Method]] = {"simsiam": SimSiam, "moco-v2": MoCoV2, "dino": DINO, "gen-dino": GenDINO}
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


WEIGHING = ("quality", "gamma", "quality_layer", "quality_every")
"""Fields of a recipe that say how pairs are weighed."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """The augmentations of one training example: two global views and, for DINO, smaller local ones."""

    first: Augment
    second: Augment
    local: tyro.conf.AvoidSubcommands[Augment | None] = None
    local_count: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way of training one encoder; every field can be set on the command line."""

    name: tyro.conf.Fixed[str]
    method: tyro.conf.Fixed[Literal["simsiam", "moco-v2", "dino", "gen-dino"]]
    method_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    augmentation: tyro.conf.Fixed[Views]

    backbone: str = "resnet18"
    """A torchvision ResNet, resnet10, or timm/<any model>."""
    backbone_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    stored_size: int = 32
    """Side, in pixels, of the square that an image is decoded to, once."""
    view_probability: float = 1.0
    """How often the second view is a synthetic one, where there is one."""

    epochs: int = 200
    batch_size: int = 512
    """Images a step over all processes."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    lr: float = 0.06
    final_lr: float = 0.0
    weight_decay: float = 5e-4
    final_weight_decay: float | None = None
    """Where the weight decay goes by a cosine; None keeps it."""
    warmup_epochs: float = 0.0
    clip_norm: float | None = None
    """Largest norm of one parameter's gradient."""
    precision: Literal["bf16", "float32"] = "bf16"
    seed: int = 0

    quality: Literal["none", "exact", "self", "distilled"] = "none"
    """What weighs pairs: nothing; a frozen encoder (--pca); the network in training; a small copy of one (--scorer)."""
    gamma: float = 1.0
    """Weights are B softmax(gamma * quality) over the batch of all processes."""
    quality_layer: str | None = None
    """For self: the layer whose maps are compared, of 3 x 3 tokens at least; None takes the last."""
    quality_every: int = 32
    """For self: steps from one look at what is foreground to the next."""

    @property
    def image_size(self) -> int:
        """Side of the global views in pixels."""
        return self.augmentation.first.size

    @property
    def architecture(self) -> dict[str, Any]:
        """What `sslzoo.create_backbone` needs to build the backbone again."""
        return {"name": self.backbone, "image_size": self.image_size, **self.backbone_options}

    def record(self) -> dict[str, Any]:
        """The recipe as plain values, for checkpoints and backbone.json; nothing on weights where there are none."""
        values = asdict(self)
        if self.quality != "none":
            return values
        return {name: value for name, value in values.items() if name not in WEIGHING}


def _pair(first: Augment, second: Augment | None = None, **local: Any) -> Views:
    return Views(first=first, second=second or first, **local)


def _cifar_augment(**changes: Any) -> Augment:
    """GenView's list for 32 px (arXiv 2403.12003): min area 0.2, jitter 0.4 with p 0.8, grey 0.2, blur p 0.5."""
    plain = Augment(size=32, crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), mean=CIFAR_MEAN, std=CIFAR_STD)
    return replace(plain, **changes)


def cifar10_simsiam() -> Recipe:
    """SimSiam on 32 px images: ResNet-18 with CIFAR stem, 200 epochs. Not yet run.

    SGD 0.06 at batch 512, weight decay 5e-4, no warm-up, a projector of two layers, no blur: the CIFAR setting of
    SimSiam's appendix D (arXiv 2011.10566), whose lr 0.03 is scaled by batch/256.
    """
    return Recipe(
        name="cifar10-simsiam",
        method="simsiam",
        method_options={"projector_layers": 2},
        backbone_options={"cifar_stem": True},
        augmentation=_pair(_cifar_augment(blur_p=0.0)),
    )


def cifar10_moco_v2() -> Recipe:
    """MoCo v2 on 32 px images as GenView trains it: ResNet-18, 500 epochs; published 93.00 with views. Not yet run."""
    return Recipe(
        name="cifar10-moco-v2",
        method="moco-v2",
        method_options={"queue_size": 4096, "momentum": 0.99, "temperature": 0.2},
        backbone_options={"cifar_stem": True},
        augmentation=_pair(_cifar_augment()),
        epochs=500,
        lr=0.5,
        warmup_epochs=10,
    )


def _dino_cifar_views() -> Views:
    """DINO's colour lists (facebookresearch/dino main_dino.py: blur 1.0/0.1, solarize 0/0.2) at 32 px, blur halved."""
    jitter = (0.4, 0.4, 0.2, 0.1)
    first = _cifar_augment(crop_scale=(0.3, 1.0), jitter=jitter, blur_p=0.5)
    return _pair(first, replace(first, blur_p=0.1, solarize_p=0.2))


def cifar10_dino() -> Recipe:
    """DINO on 32 px images: ResNet-18 with CIFAR stem, 200 epochs. Not yet run."""
    return Recipe(
        name="cifar10-dino",
        method="dino",
        method_options={"out_dim": 4096},
        backbone_options={"cifar_stem": True},
        augmentation=_dino_cifar_views(),
        optimizer="adamw",
        lr=1e-3,
        final_lr=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10,
        clip_norm=3.0,
    )


def cifar10_gen_dino() -> Recipe:
    """Gen-DINO on 32 px images: cifar10-dino with the disentanglement term. Not yet run."""
    return replace(cifar10_dino(), name="cifar10-gen-dino", method="gen-dino")


def _imagenet_augment(**changes: Any) -> Augment:
    return replace(Augment(size=224, crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1)), **changes)


def imagenet_simsiam() -> Recipe:
    """SimSiam, ResNet-50, 100 epochs on ImageNet-1k; published 68.1 linear (facebookresearch/simsiam). Not yet run."""
    return Recipe(
        name="imagenet-simsiam",
        method="simsiam",
        backbone="resnet50",
        augmentation=_pair(_imagenet_augment()),
        stored_size=288,
        epochs=100,
        lr=0.1,
        weight_decay=1e-4,
    )


def imagenet_moco_v2() -> Recipe:
    """MoCo v2, ResNet-50, 200 epochs on ImageNet-1k; published 67.5 linear, 70.0 with views (GenView). Not yet run."""
    return Recipe(
        name="imagenet-moco-v2",
        method="moco-v2",
        backbone="resnet50",
        augmentation=_pair(_imagenet_augment()),
        stored_size=288,
        epochs=200,
        batch_size=256,
        lr=0.03,
        weight_decay=1e-4,
    )


def imagenet_dino() -> Recipe:
    """DINO, ViT-S/16, 100 epochs, two 224 px and eight 96 px crops; published 69.4 kNN, 74.0 linear. Not yet run."""
    jitter = (0.4, 0.4, 0.2, 0.1)
    first = _imagenet_augment(crop_scale=(0.4, 1.0), jitter=jitter, blur_p=1.0)
    local = _imagenet_augment(size=96, crop_scale=(0.05, 0.4), jitter=jitter, blur_p=0.5)
    return Recipe(
        name="imagenet-dino",
        method="dino",
        backbone="timm/vit_small_patch16_224",
        backbone_options={"dynamic_img_size": True, "drop_path_rate": 0.1},
        augmentation=_pair(first, replace(first, blur_p=0.1, solarize_p=0.2), local=local, local_count=8),
        stored_size=288,
        epochs=100,
        optimizer="adamw",
        lr=5e-4 * 512 / 256,
        final_lr=1e-6,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10,
        clip_norm=3.0,
    )


def imagenet_gen_dino() -> Recipe:
    """Gen-DINO: imagenet-dino with generative and interpolated views; published 70.9 kNN, 74.5 linear. Not yet run."""
    return replace(imagenet_dino(), name="imagenet-gen-dino", method="gen-dino")


def small_dino() -> Recipe:
    """DINO for a laptop: a narrow ResNet-10 at 32 px, what the loop trains first."""
    return replace(
        cifar10_dino(),
        name="small-dino",
        method_options={
            "out_dim": 512,
            "hidden_dim": 512,
            "bottleneck_dim": 128,
            "head_batch_norm": True,
            "momentum": 0.95,
            "frozen_share": 0.05,
        },
        backbone="resnet10",
        backbone_options={"cifar_stem": True, "stem_stride": 2, "width": 32},
        quality_layer="layer3",
        epochs=20,
        batch_size=128,
        lr=2e-3,
        weight_decay=1e-4,
        final_weight_decay=None,
        warmup_epochs=1,
    )


def small_gen_dino() -> Recipe:
    """Gen-DINO for a laptop: what the loop trains second."""
    return replace(small_dino(), name="small-gen-dino", method="gen-dino")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "small-dino": small_dino,
    "small-gen-dino": small_gen_dino,
    "cifar10-simsiam": cifar10_simsiam,
    "cifar10-moco-v2": cifar10_moco_v2,
    "cifar10-dino": cifar10_dino,
    "cifar10-gen-dino": cifar10_gen_dino,
    "imagenet-simsiam": imagenet_simsiam,
    "imagenet-moco-v2": imagenet_moco_v2,
    "imagenet-dino": imagenet_dino,
    "imagenet-gen-dino": imagenet_gen_dino,
}
