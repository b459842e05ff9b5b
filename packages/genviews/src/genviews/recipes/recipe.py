"""The configuration of a recipe: one way of training one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pairdata import Augment

if TYPE_CHECKING:
    from sslzoo.methods import Method

MethodName = Literal[
    "simclr", "moco-v2", "moco-v3", "simsiam", "byol", "swav", "vicreg", "barlow-twins", "dino", "gen-dino"
]
Policy = Literal["genview", "gencl", "gensis", "none"]

METHODS: dict[MethodName, str] = {
    "simclr": "SimCLR",
    "moco-v2": "MoCoV2",
    "moco-v3": "MoCoV3",
    "simsiam": "SimSiam",
    "byol": "BYOL",
    "swav": "SwAV",
    "vicreg": "VICReg",
    "barlow-twins": "BarlowTwins",
    "dino": "DINO",
    "gen-dino": "GenDINO",
}
"""Class in `sslzoo.methods` of each method."""
PAIR_WEIGHTING = ("pair_weighting", "gamma", "quality_layer", "pca_interval")
"""Fields of pair weighting, recorded only if it is used."""
DESCRIPTION = ("dataset", "expected")
"""Fields that describe a recipe and do not affect training."""
NOT_YET_RUN = "not yet run"


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """The augmentations of one training example: two global views and, for multi-crop, smaller local ones."""

    first: Augment
    second: Augment
    local: tyro.conf.AvoidSubcommands[Augment | None] = None
    local_count: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way of training one encoder; every field can be set on the command line."""

    name: tyro.conf.Fixed[str]
    method: tyro.conf.Fixed[MethodName]
    method_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    augmentation: tyro.conf.Fixed[AugmentationConfig]
    dataset: tyro.conf.Fixed[str]
    """Dataset that the constants are for; any folder of images can be used."""
    expected: tyro.conf.Fixed[str] = NOT_YET_RUN
    """Published results, or those measured here."""

    backbone: str = "resnet18"
    """A torchvision ResNet, resnet10, or timm/<any model>."""
    backbone_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    decode_size: int = 32
    """Size in pixels of the square to which images are decoded; smaller crops are upsampled."""
    policy: Policy = "genview"
    """Position of synthetic views: random (genview), first with other augmentations (gencl), second (gensis), none."""
    view_probability: float = 1.0
    """Probability of a synthetic view in a pair, for images that have one."""
    synthetic_crops: Literal["one", "half"] = "one"
    """For genview with multi-crop: make one view (as in GenView's code) or half of the views synthetic."""

    epochs: int = 200
    """Passes over the images; a higher number prolongs a finished run."""
    batch_size: int = 512
    """Images per step, over all processes."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    """Optimizer of the encoder."""
    optimizer_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    base_lr: Annotated[float, tyro.conf.arg(aliases=["--lr"])] = 0.03
    """Learning rate at the recipe's reference batch size (256 or as documented there), scaled to --batch-size."""
    base_batch_size: tyro.conf.Fixed[int] = 256
    """Batch size at which base_lr is used unscaled."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """Scaling of the learning rate with the batch size."""
    final_lr: float | None = None
    """Final learning rate of the cosine schedule; None: final_lr_ratio times the peak."""
    final_lr_ratio: float = 0.0
    """Final learning rate of the cosine schedule as a fraction of the peak; scales with --lr and --batch-size."""
    weight_decay: float = 5e-4
    """Weight decay, of the first step if it is scheduled."""
    final_weight_decay: float | None = None
    """Final weight decay of a cosine schedule; default: constant."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises linearly."""
    warmup_includes_peak: bool = True
    """Reach the highest learning rate at the last step of the warm-up instead of the first step after it."""
    per_param_clip_norm: float | None = None
    """Maximum norm of the gradient of each parameter."""
    clip_grad_norm: float | None = None
    """Maximum norm of the gradient of all parameters together."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    """Precision of the forward pass."""
    seed: int = 0
    """Seed of weights, order, crops and augmentations."""

    pair_weighting: Literal["none", "exact", "self", "distilled"] = "none"
    """Scorer of the pairs: none, a frozen encoder (--pca), the network in training, or a distilled one (--scorer)."""
    gamma: float = 1.0
    """Weights are B softmax(gamma * quality) over the batch of all processes."""
    quality_layer: str | None = None
    """For self: the layer whose feature maps are compared, at least 3 x 3; default: the last."""
    pca_interval: int = 32
    """For self: number of steps between updates of the foreground direction."""

    @property
    def lr(self) -> float:
        """Peak learning rate: base_lr, scaled from base_batch_size to batch_size."""
        ratio = self.batch_size / self.base_batch_size
        return self.base_lr * {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[self.lr_scaling]

    @property
    def lowest_lr(self) -> float:
        """Learning rate at the end of training."""
        return self.final_lr_ratio * self.lr if self.final_lr is None else self.final_lr

    @property
    def image_size(self) -> int:
        """Height and width of the global views in pixels."""
        return self.augmentation.first.size

    @property
    def crop_sizes(self) -> list[int]:
        """Distinct crop sizes in pixels, global crops first."""
        plan = self.augmentation
        lists = [plan.first, plan.second] + ([plan.local] if plan.local and plan.local_count else [])
        return list(dict.fromkeys(augment.size for augment in lists))

    @property
    def architecture(self) -> dict[str, Any]:
        """Arguments of `sslzoo.create_backbone`."""
        return {"name": self.backbone, "image_size": self.image_size, **self.backbone_options}

    def record(self) -> dict[str, Any]:
        """Return the recipe as plain values, for checkpoints and backbone.json; pair weighting only if it is used."""
        excluded = DESCRIPTION + (PAIR_WEIGHTING if self.pair_weighting == "none" else ())
        return {name: value for name, value in asdict(self).items() if name not in excluded}


def method_class(name: MethodName) -> Callable[..., Method]:
    """Return the class of a method."""
    import sslzoo.methods

    return getattr(sslzoo.methods, METHODS[name])
