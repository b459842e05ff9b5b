"""Checkpoint formats: how official repositories name the tensors in their files."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from genviews_core.backbones import describe
from sslzoo.official.key_mapping import (
    Tensors,
    add_counters,
    from_dinov2,
    from_lightly,
    from_sequential,
    from_simclr_v2,
    name_by_order,
    require_counters,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNNORMALIZED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""SimCLR's networks take pixels between 0 and 1: tonylins/simclr-converter README.md."""

CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Keys under which training scripts save the state dict of a network."""
WRAPPERS = ("module.", "_forward_module.")
"""Name prefixes added by DistributedDataParallel and Lightning strategies, possibly repeated."""


def unwrap(content: Any) -> Tensors | None:
    """Strip the prefixes of wrappers and torch.compile from a state dict; return None for other content."""
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        return None
    tensors = {str(name).replace("_orig_mod.", ""): tensor for name, tensor in content.items()}
    while wrapper := next((each for each in WRAPPERS if all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """The names of the tensors in the files of one repository.

    Attributes:
        name: name of the format.
        method: method that trained the network; None if the file does not show it.
        source: repository, commit and file that define the format.
        licence: licence of that repository.
        container: key of the state dict in the file; None: the file is the state dict. A format with `evidence` is also
            recognized without a container or under another common key.
        backbone: prefix of the names of the backbone's tensors.
        dropped: prefixes of the names of ignored tensors: heads, the other branch, queues.
        evidence: name prefixes that all must occur, and that no other format of the same container has.
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
        """Return the unwrapped state dict, or None if the file has another format."""
        inside = content if self.container is None else content.get(self.container)
        candidates = [inside, content, *map(content.get, CONTAINERS)] if self.evidence else [inside]
        for tensors in filter(None, map(unwrap, candidates)):
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
            raise ValueError(f"has tensors that this format does not have: {describe({'unknown': unknown})}")
        kept = {name.removeprefix(self.backbone): tensor for name, tensor in rest.items()}
        return self.rename(kept) if self.rename else kept


_MOCO = CheckpointFormat(
    name="moco-v1",
    method="MoCo v1",
    source="facebookresearch/moco@132aea9 main_moco.py, moco/builder.py",
    licence="MIT; CC-BY-NC-4.0 until 2023",
    container="state_dict",
    backbone="encoder_q.",
    dropped=("encoder_q.fc.", "encoder_k.", "queue"),
    evidence=("encoder_q.fc.weight", "encoder_k."),
)
_SWAV = CheckpointFormat(
    name="swav",
    method="SwAV",
    source="facebookresearch/swav@06b1b7c main_swav.py, src/resnet50.py",
    licence="CC-BY-NC-4.0",
    dropped=("projection_head.", "prototypes."),
    evidence=("projection_head.", "prototypes."),
)
_CLUSTERS = replace(
    _SWAV,
    name="deepcluster-v2",
    method="DeepCluster-v2 or SeLa-v2",
    source="facebookresearch/swav@06b1b7c main_deepclusterv2.py, src/resnet50.py",
    evidence=("projection_head.", "prototypes.prototypes0."),
)
BARE = CheckpointFormat(
    name="bare",
    method=None,
    source="a network's state_dict without heads",
    licence="as its authors say",
    dropped=("fc.", "head.", "classifier."),
    rename=require_counters,
)
_DINOV2 = CheckpointFormat(
    name="dinov2",
    method="DINOv2",
    source="facebookresearch/dinov2@b8931f7 dinov2/hub/backbones.py, dinov2/models/vision_transformer.py",
    licence="Apache-2.0",
    evidence=("mask_token", "patch_embed.", "blocks."),
    rename=from_dinov2,
    image_size=518,
)
_LIGHTLY = CheckpointFormat(
    name="lightly",
    method=None,
    source="lightly-ai/lightly@e8d317f benchmarks/imagenet/resnet50, examples/pytorch_lightning",
    licence="MIT",
    container="state_dict",
    backbone="backbone.",
    dropped=(
        *("projection_head", "prediction_head", "online_classifier.", "prototypes", "queues", "criterion."),
        *("teacher_", "student_", "key_", "anchor_", "backbone_momentum.", "backbone.mask_token"),
    ),
    evidence=("backbone.", "projection_head"),
    rename=from_lightly,
)
_SOLO = CheckpointFormat(
    name="solo-learn",
    method=None,
    source="vturrisi/solo-learn@9187ea3 solo/methods/base.py, main_linear.py",
    licence="MIT",
    container="state_dict",
    backbone="backbone.",
    dropped=(
        *("classifier.", "projector", "predictor", "prototypes", "queue", "head.", "decoder", "mask_token"),
        *("momentum_", "dino_loss_func.", "loss_func.", "bn.", "norm."),
    ),
    evidence=("backbone.", "classifier."),
    stem_padding=2,
)

FORMATS = (
    _LIGHTLY,
    replace(
        _LIGHTLY,
        name="lightly-teacher",
        backbone="teacher_backbone.",
        dropped=("student_", "teacher_head.", "teacher_projection_head.", "criterion", "predictor", "dino_", "ibot_"),
        evidence=("teacher_backbone.", "student_backbone."),
    ),
    _SOLO,
    replace(_SOLO, name="solo-learn-old", backbone="encoder.", evidence=("encoder.", "classifier.")),
    replace(_MOCO, name="moco-v2", method="MoCo v2", evidence=("encoder_q.fc.0.", "encoder_k.fc.2.")),
    _MOCO,
    CheckpointFormat(
        name="moco-v3",
        method="MoCo v3",
        source="facebookresearch/moco-v3@c349e6e main_moco.py, moco/builder.py, vits.py",
        licence="CC-BY-NC-4.0",
        container="state_dict",
        backbone="base_encoder.",
        dropped=("base_encoder.fc.", "base_encoder.head.", "momentum_encoder.", "predictor."),
        evidence=("base_encoder.", "momentum_encoder."),
    ),
    CheckpointFormat(
        name="simsiam",
        method="SimSiam",
        source="facebookresearch/simsiam@a7bc177 main_simsiam.py, simsiam/builder.py",
        licence="CC-BY-NC-4.0",
        container="state_dict",
        backbone="encoder.",
        dropped=("encoder.fc.", "predictor."),
        evidence=("encoder.fc.6.", "predictor."),
    ),
    CheckpointFormat(
        name="byol-pytorch",
        method="BYOL",
        source="yaox12/BYOL-PyTorch@edefc01 trainer/byol_trainer.py, model/byol_model.py",
        licence="MIT",
        container="model",
        backbone="online_network.encoder.",
        dropped=("online_network.projetion.", "target_network.", "predictor."),
        evidence=("online_network.encoder.", "target_network."),
        rename=from_sequential,
    ),
    CheckpointFormat(
        name="byol-pytorch-release",
        method="BYOL",
        source="yaox12/BYOL-PyTorch@edefc01 readme.md, utils/load_and_convert.py",
        licence="MIT",
        container="online_backbone",
        rename=name_by_order,
    ),
    _CLUSTERS,
    replace(_CLUSTERS, name="deepcluster-v2-training", container="state_dict"),
    _SWAV,
    replace(_SWAV, name="swav-training", container="state_dict"),
    CheckpointFormat(
        name="barlow-twins",
        method="Barlow Twins",
        source="facebookresearch/barlowtwins@8e8d284 main.py",
        licence="MIT",
        container="model",
        backbone="backbone.",
        dropped=("projector.", "bn."),
        evidence=("projector.", "bn.running_mean"),
    ),
    CheckpointFormat(
        name="vicreg",
        method="VICReg",
        source="facebookresearch/vicreg@4e12602 main_vicreg.py, resnet.py",
        licence="MIT",
        container="model",
        backbone="backbone.",
        dropped=("projector.",),
        evidence=("projector.", "backbone."),
    ),
    CheckpointFormat(
        name="dino",
        method="DINO",
        source="facebookresearch/dino@7c446df main_dino.py, utils.py",
        licence="Apache-2.0",
        container="teacher",
        backbone="backbone.",
        dropped=("head.",),
        evidence=("head.last_layer.",),
    ),
    CheckpointFormat(
        name="dino-student",
        method="DINO (student)",
        source="facebookresearch/dino@7c446df main_dino.py, utils.py",
        licence="Apache-2.0",
        container="student",
        backbone="backbone.",
        dropped=("head.",),
        evidence=("head.last_layer.",),
    ),
    _DINOV2,
    replace(
        _DINOV2,
        name="dinov2-training",
        container="teacher",
        backbone="backbone.",
        dropped=("dino_head.", "ibot_head."),
        evidence=("dino_head.", "backbone.mask_token"),
    ),
    CheckpointFormat(
        name="simclr-pytorch",
        method="SimCLR",
        source="sthalles/SimCLR@1848fc9 simclr.py, models/resnet_simclr.py",
        licence="MIT",
        container="state_dict",
        backbone="backbone.",
        dropped=("backbone.fc.",),
        evidence=("backbone.fc.0.", "backbone.fc.2."),
        mean=UNNORMALIZED[0],
        std=UNNORMALIZED[1],
    ),
    CheckpointFormat(
        name="simclr-v2",
        method="SimCLR v2",
        source="Separius/SimCLRv2-Pytorch@f4c2f41 convert.py, resnet.py",
        licence="Apache-2.0 (google-research/simclr)",
        container="resnet",
        backbone="net.",
        dropped=("fc.",),
        rename=from_simclr_v2,
        mean=UNNORMALIZED[0],
        std=UNNORMALIZED[1],
    ),
    CheckpointFormat(
        name="cifar-resnet",
        method="labels",
        source="akamaster/pytorch_resnet_cifar10@d5489e8 resnet.py, trainer.py",
        licence="BSD-2-Clause",
        container="state_dict",
        dropped=("linear.",),
        evidence=("linear.", "layer3.0.conv1."),
        rename=add_counters,
        image_size=32,
    ),
    BARE,
    replace(BARE, name="bare-state-dict", container="state_dict"),
    replace(BARE, name="bare-model", container="model"),
)
"""Formats in the order in which they are tried."""


def _format(name: str) -> CheckpointFormat:
    return next(each for each in FORMATS if each.name == name)


NAMED_FORMATS = (
    CheckpointFormat(
        name="byol-convert",
        method="BYOL",
        source="ajtejankar/byol-convert@7497e7f convert.py, resnet.py",
        licence="Apache-2.0 (deepmind/deepmind-research)",
        dropped=("fc.",),
        rename=add_counters,
        same_padding=True,
    ),
    replace(BARE, name="dino-backbone", method="DINO", source=_format("dino").source, licence="Apache-2.0"),
    replace(BARE, name="vicreg-backbone", method="VICReg", source=_format("vicreg").source, licence="MIT"),
    replace(
        BARE, name="barlow-twins-backbone", method="Barlow Twins", source=_format("barlow-twins").source, licence="MIT"
    ),
    replace(
        BARE,
        name="moco-v3-deit",
        method="MoCo v3",
        source="facebookresearch/moco-v3@c349e6e convert_to_deit.py",
        licence="CC-BY-NC-4.0",
        container="model",
    ),
    replace(
        BARE,
        name="simclr-converter",
        method="SimCLR",
        source="tonylins/simclr-converter@139d3cb convert.py, resnet_wider.py",
        licence="Apache-2.0 (google-research/simclr)",
        container="state_dict",
        mean=UNNORMALIZED[0],
        std=UNNORMALIZED[1],
    ),
)
"""Formats that names in the file do not reveal: the user names them."""
