"""What a recipe is: one way of training one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from pairdata import Augment

MethodName = Literal[
    "simclr", "moco-v2", "moco-v3", "simsiam", "byol", "swav", "vicreg", "barlow-twins", "dino", "gen-dino"
]
Policy = Literal["genview", "gencl", "gensis", "none"]

WEIGHING = ("quality", "gamma", "quality_layer", "quality_every")
"""Fields of a recipe that say how pairs are weighed."""
DESCRIPTION = ("dataset", "expected")
"""Fields of a recipe that tell a reader about it and change nothing."""
NOT_YET_RUN = "not yet run"


@dataclass(frozen=True, kw_only=True)
class Views:
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
    augmentation: tyro.conf.Fixed[Views]
    dataset: tyro.conf.Fixed[str]
    """What it is made for; it trains on any folder."""
    expected: tyro.conf.Fixed[str] = NOT_YET_RUN
    """Published figures, or what was measured here."""

    backbone: str = "resnet18"
    """A torchvision ResNet, resnet10, or timm/<any model>."""
    backbone_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    stored_size: int = 32
    """Size in pixels of the square to which images are decoded; smaller crops are upsampled."""
    policy: Policy = "genview"
    """Where synthetic views go: either place (genview); first, augmented otherwise (gencl); second (gensis); none."""
    view_probability: float = 1.0
    """How often a pair has a synthetic view, where the image has one."""
    synthetic_crops: Literal["one", "half"] = "one"
    """For genview with multi-crop: make one view (as in GenView's code) or half of the views synthetic."""

    epochs: int = 200
    batch_size: int = 512
    """Images a step over all processes."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    optimizer_options: tyro.conf.Fixed[Mapping[str, Any]] = field(default_factory=dict)
    base_lr: Annotated[float, tyro.conf.arg(aliases=["--lr"])] = 0.03
    """Learning rate at the recipe's reference batch (256, or what its text says); scaled to --batch-size."""
    lr_batch: tyro.conf.Fixed[int] = 256
    """The reference batch of base_lr."""
    lr_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the learning rate follows the batch size."""
    final_lr: float | None = None
    """Final learning rate of the cosine schedule; None: final_lr_ratio times the peak."""
    final_lr_ratio: float = 0.0
    """Final learning rate of the cosine schedule as a fraction of the peak; scales with --lr and --batch-size."""
    weight_decay: float = 5e-4
    final_weight_decay: float | None = None
    """Where the weight decay goes by a cosine; None keeps it."""
    warmup_epochs: float = 0.0
    warmup_holds_peak: bool = True
    """Whether the last step of the warm-up has the highest learning rate, or the first one after it."""
    clip_norm: float | None = None
    """Largest norm of one parameter's gradient."""
    clip_total_norm: float | None = None
    """Largest norm of the gradient of all parameters together."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
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
    def lr(self) -> float:
        """The highest learning rate of the training: base_lr, scaled from lr_batch to batch_size."""
        share = self.batch_size / self.lr_batch
        return self.base_lr * {"linear": share, "sqrt": share**0.5, "none": 1.0}[self.lr_scaling]

    @property
    def lowest_lr(self) -> float:
        """The learning rate at the end of training."""
        return self.final_lr_ratio * self.lr if self.final_lr is None else self.final_lr

    @property
    def image_size(self) -> int:
        """Side of the global views in pixels."""
        return self.augmentation.first.size

    @property
    def crop_sizes(self) -> list[int]:
        """Distinct crop sizes in pixels, global crops first."""
        plan = self.augmentation
        lists = [plan.first, plan.second] + ([plan.local] if plan.local and plan.local_count else [])
        return list(dict.fromkeys(augment.size for augment in lists))

    @property
    def architecture(self) -> dict[str, Any]:
        """What `sslzoo.create_backbone` needs to build the backbone again."""
        return {"name": self.backbone, "image_size": self.image_size, **self.backbone_options}

    def record(self) -> dict[str, Any]:
        """The recipe as plain values, for checkpoints and backbone.json; nothing on weights where there are none."""
        left_out = DESCRIPTION + (WEIGHING if self.quality == "none" else ())
        return {name: value for name, value in asdict(self).items() if name not in left_out}
