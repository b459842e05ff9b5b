"""Published protocols by name, each with the source of its numbers, and overrides of them."""

import difflib
from dataclasses import dataclass, replace

from ssl_eval.protocols import (
    ClassTokens,
    Cosine,
    FineTuneProtocol,
    KNNProtocol,
    LinearProtocol,
    MultiStep,
    Protocol,
    TransformConfig,
    scale_protocol,
)

_GENVIEW = LinearProtocol(
    source="GenView (https://arxiv.org/abs/2403.12003) 4.1; xiaojieli0903/genview@38a6a78 configs_genview/mocov3/"
    "benchmarks/resnet50_8xb128-linear-coslr-90e_in1k.py",
    epochs=90,
    batch_size=1024,
    learning_rate=0.4,
)
_MOCO_V3 = LinearProtocol(
    source="facebookresearch/moco-v3@c349e6e main_lincls.py, CONFIG.md: 0.1 for 256 images",
    epochs=90,
    batch_size=1024,
    learning_rate=0.4,
)
_DINO = LinearProtocol(
    source="facebookresearch/dino@7c446df eval_linear.py: 0.001 for 256 images, 8 x 128; n_last_blocks 4 for ViT-S",
    epochs=100,
    batch_size=1024,
    learning_rate=0.004,
    class_tokens=ClassTokens(blocks=4),
    preparation=TransformConfig(interpolation="bicubic"),
)
_GENVIEW_SEMI = FineTuneProtocol(
    source="GenView (https://arxiv.org/abs/2403.12003) 4.1; batch size not stated in paper or code: 256, as SwAV",
    percent=1,
    epochs=20,
    batch_size=256,
    head_lr=1.0,
    backbone_lr=1e-5,
)
_VICREG_SEMI = FineTuneProtocol(
    source="facebookresearch/vicreg@4e12602 evaluate.py, README.md (semi-supervised evaluation)",
    percent=1,
    epochs=20,
    batch_size=256,
    head_lr=0.08,
    backbone_lr=0.03,
)
_SWAV_SEMI = FineTuneProtocol(
    source="facebookresearch/swav@06b1b7c eval_semisup.py, README.md: 8 x 32 images, x0.2 at epochs 12 and 16 of 20",
    percent=1,
    epochs=20,
    batch_size=256,
    head_lr=5.0,
    backbone_lr=0.02,
    schedule=MultiStep(at=(0.6, 0.8), by=0.2),
)

PROTOCOLS: dict[str, Protocol] = {
    "genview-linear": _GENVIEW,
    "genview-linear-vit": replace(_GENVIEW, learning_rate=12.0),
    "genview-cifar-linear": LinearProtocol(
        source="GenView (https://arxiv.org/abs/2403.12003) 4.2; crops and batch size not stated: as usual, 256",
        epochs=100,
        batch_size=256,
        learning_rate=0.2,
        preparation=TransformConfig(size=32, resize=32),
    ),
    "mocov2-linear": LinearProtocol(
        source="facebookresearch/moco@132aea9 main_lincls.py: x0.1 at epochs 60 and 80 of 100",
        epochs=100,
        batch_size=256,
        learning_rate=30.0,
        schedule=MultiStep(at=(0.6, 0.8), by=0.1),
    ),
    "mocov3-linear": _MOCO_V3,
    "mocov3-linear-vit": replace(_MOCO_V3, learning_rate=12.0),
    "simsiam-linear": LinearProtocol(
        source="facebookresearch/simsiam@a7bc177 main_lincls.py --lars: 0.1 for 256 images, apex LARC, trust 0.001",
        epochs=90,
        batch_size=4096,
        learning_rate=1.6,
        larc=True,
    ),
    "byol-linear": LinearProtocol(
        source="google-deepmind/deepmind-research@d8df415 byol/configs/eval.py: 0.2 for 256 images, cosine by steps; "
        "BYOL (https://arxiv.org/abs/2006.07733) C.1: batch 1024, five rates, chosen on held-out training images",
        epochs=80,
        batch_size=1024,
        learning_rate=0.8,
        searched=(1.6, 1.2, 0.8, 0.4, 0.2),
        schedule=Cosine(per_step=True),
        nesterov=True,
        preparation=TransformConfig(interpolation="bicubic"),
    ),
    "swav-linear": LinearProtocol(
        source="facebookresearch/swav@06b1b7c eval_linear.py: 8 x 32 images, global pooling, no batch norm",
        epochs=100,
        batch_size=256,
        learning_rate=0.3,
        weight_decay=1e-6,
    ),
    "vicreg-linear": LinearProtocol(
        source="facebookresearch/vicreg@4e12602 evaluate.py, README.md: --lr-head 0.02",
        epochs=100,
        batch_size=256,
        learning_rate=0.02,
        weight_decay=1e-6,
    ),
    "dino-linear": _DINO,
    "dino-linear-vit-b": replace(
        _DINO,
        source="facebookresearch/dino@7c446df eval_linear.py: 0.001 for 256 images, 8 x 128; n_last_blocks 1 and "
        "avgpool_patchtokens for ViT-B",
        class_tokens=ClassTokens(blocks=1, average=True),
    ),
    "dino-linear-resnet": replace(
        _DINO,
        source="facebookresearch/dino@7c446df eval_linear.py: 0.001 for 256 images, 8 x 128; the network's own output",
        class_tokens=None,
    ),
    "dino-knn": KNNProtocol(
        source="facebookresearch/dino@7c446df eval_knn.py: 20 neighbors usually work best",
        k=(20, 10, 100, 200),
        temperature=0.07,
        preparation=TransformConfig(interpolation="bicubic"),
    ),
    "genview-semi-1": _GENVIEW_SEMI,
    "genview-semi-10": replace(_GENVIEW_SEMI, percent=10, head_lr=0.2, backbone_lr=0.02),
    "vicreg-semi-1": _VICREG_SEMI,
    "vicreg-semi-10": replace(_VICREG_SEMI, percent=10, head_lr=0.1, backbone_lr=0.01),
    "swav-semi-1": _SWAV_SEMI,
    "swav-semi-10": replace(_SWAV_SEMI, percent=10, head_lr=0.2, backbone_lr=0.01),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        ValueError: there is none; the message suggests similar names.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3, cutoff=0.4)
        raise ValueError(f"expected a protocol of {', '.join(near or PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


@dataclass(frozen=True, kw_only=True)
class ProtocolOverride:
    """A published protocol with overrides.

    Attributes:
        name: name of the protocol, one of PROTOCOLS.
        epochs: overrides the protocol's epochs.
        batch_size: overrides the batch size, and scales the learning rates.
        cached: whether to extract features once, without augmentation (linear protocols).
        labels: which labels are used, if the protocol does not fix the list: "seed 0".
        percent: overrides the percentage of the labels (fine-tuning).
        head_lr: overrides the classifier's learning rate, without scaling (fine-tuning).
        backbone_lr: overrides the backbone's learning rate, without scaling (fine-tuning).
    """

    name: str
    epochs: int | None = None
    batch_size: int | None = None
    cached: bool = False
    labels: str | None = None
    percent: int | None = None
    head_lr: float | None = None
    backbone_lr: float | None = None

    @property
    def label(self) -> str:
        """Name in results, such as "genview-linear", "vicreg-semi-10 epochs=5 seed 0"."""
        parts = [self.name]
        parts += [f"epochs={self.epochs}"] if self.epochs else []
        parts += [f"batch={self.batch_size}"] if self.batch_size else []
        parts += [f"{name.removesuffix('_lr')}={value:g}" for name, value in self._few_labels.items()]
        parts += ["cached"] if self.cached else []
        return " ".join([*parts, self.labels] if self.labels else parts)

    @property
    def options(self) -> list[str]:
        """Command-line options, without the labels: "--protocol=vicreg-semi-10", "--epochs=5"."""
        changed = {"protocol": self.name, "epochs": self.epochs, "batch-size": self.batch_size}
        changed |= {name.replace("_", "-"): value for name, value in self._few_labels.items()}
        return [f"--{name}={value}" for name, value in changed.items() if value is not None] + [
            "--cached"
        ] * self.cached

    @property
    def _few_labels(self) -> dict[str, int | float]:
        """Overrides that only fine-tuning protocols have."""
        given = {name: getattr(self, name) for name in ("percent", "head_lr", "backbone_lr")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def protocol(self) -> Protocol:
        """The protocol with the overrides.

        Raises:
            ValueError: there is no such protocol, or an override does not apply to it.
        """
        protocol = find_protocol(self.name)
        if self._few_labels and not isinstance(protocol, FineTuneProtocol):
            raise ValueError(
                f"{self.name} freezes the backbone and uses all labels; leave {next(iter(self._few_labels))} out"
            )
        if isinstance(protocol, KNNProtocol):
            if self.epochs or self.batch_size or self.cached:
                raise ValueError(f"{self.name} has neither epochs nor batches; leave them out")
            return protocol
        if self.cached and not isinstance(protocol, LinearProtocol):
            raise ValueError(f"{self.name} trains the backbone, so that features cannot be cached; leave cached out")
        fitted = scale_protocol(protocol, batch_size=self.batch_size, epochs=self.epochs)
        return replace(fitted, **self._few_labels) if self._few_labels else fitted
