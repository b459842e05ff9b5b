"""How the official repositories save their networks."""

from dataclasses import replace

from sslzoo.official.layout import Layout
from sslzoo.official.rename import (
    by_order,
    from_dinov2,
    from_lightly,
    from_sequential,
    from_simclr_v2,
    only_counted,
    with_counters,
)

UNCHANGED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""SimCLR's networks see pixels between 0 and 1: tonylins/simclr-converter README.md."""

_MOCO = Layout(
    name="moco-v1",
    method="MoCo v1",
    source="facebookresearch/moco@132aea9 main_moco.py, moco/builder.py",
    licence="MIT; CC-BY-NC-4.0 until 2023",
    container="state_dict",
    backbone="encoder_q.",
    dropped=("encoder_q.fc.", "encoder_k.", "queue"),
    evidence=("encoder_q.fc.weight", "encoder_k."),
)
_SWAV = Layout(
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
BARE = Layout(
    name="bare",
    method=None,
    source="a network's state_dict without heads",
    licence="as its authors say",
    dropped=("fc.", "head.", "classifier."),
    rename=only_counted,
)
_DINOV2 = Layout(
    name="dinov2",
    method="DINOv2",
    source="facebookresearch/dinov2@b8931f7 dinov2/hub/backbones.py, dinov2/models/vision_transformer.py",
    licence="Apache-2.0",
    evidence=("mask_token", "patch_embed.", "blocks."),
    rename=from_dinov2,
    image_size=518,
)
_LIGHTLY = Layout(
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
_SOLO = Layout(
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

LAYOUTS = (
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
    Layout(
        name="moco-v3",
        method="MoCo v3",
        source="facebookresearch/moco-v3@c349e6e main_moco.py, moco/builder.py, vits.py",
        licence="CC-BY-NC-4.0",
        container="state_dict",
        backbone="base_encoder.",
        dropped=("base_encoder.fc.", "base_encoder.head.", "momentum_encoder.", "predictor."),
        evidence=("base_encoder.", "momentum_encoder."),
    ),
    Layout(
        name="simsiam",
        method="SimSiam",
        source="facebookresearch/simsiam@a7bc177 main_simsiam.py, simsiam/builder.py",
        licence="CC-BY-NC-4.0",
        container="state_dict",
        backbone="encoder.",
        dropped=("encoder.fc.", "predictor."),
        evidence=("encoder.fc.6.", "predictor."),
    ),
    Layout(
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
    Layout(
        name="byol-pytorch-release",
        method="BYOL",
        source="yaox12/BYOL-PyTorch@edefc01 readme.md, utils/load_and_convert.py",
        licence="MIT",
        container="online_backbone",
        rename=by_order,
    ),
    _CLUSTERS,
    replace(_CLUSTERS, name="deepcluster-v2-training", container="state_dict"),
    _SWAV,
    replace(_SWAV, name="swav-training", container="state_dict"),
    Layout(
        name="barlow-twins",
        method="Barlow Twins",
        source="facebookresearch/barlowtwins@8e8d284 main.py",
        licence="MIT",
        container="model",
        backbone="backbone.",
        dropped=("projector.", "bn."),
        evidence=("projector.", "bn.running_mean"),
    ),
    Layout(
        name="vicreg",
        method="VICReg",
        source="facebookresearch/vicreg@4e12602 main_vicreg.py, resnet.py",
        licence="MIT",
        container="model",
        backbone="backbone.",
        dropped=("projector.",),
        evidence=("projector.", "backbone."),
    ),
    Layout(
        name="dino",
        method="DINO",
        source="facebookresearch/dino@7c446df main_dino.py, utils.py",
        licence="Apache-2.0",
        container="teacher",
        backbone="backbone.",
        dropped=("head.",),
        evidence=("head.last_layer.",),
    ),
    Layout(
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
    Layout(
        name="simclr-pytorch",
        method="SimCLR",
        source="sthalles/SimCLR@1848fc9 simclr.py, models/resnet_simclr.py",
        licence="MIT",
        container="state_dict",
        backbone="backbone.",
        dropped=("backbone.fc.",),
        evidence=("backbone.fc.0.", "backbone.fc.2."),
        mean=UNCHANGED[0],
        std=UNCHANGED[1],
    ),
    Layout(
        name="simclr-v2",
        method="SimCLR v2",
        source="Separius/SimCLRv2-Pytorch@f4c2f41 convert.py, resnet.py",
        licence="Apache-2.0 (google-research/simclr)",
        container="resnet",
        backbone="net.",
        dropped=("fc.",),
        rename=from_simclr_v2,
        mean=UNCHANGED[0],
        std=UNCHANGED[1],
    ),
    Layout(
        name="cifar-resnet",
        method="labels",
        source="akamaster/pytorch_resnet_cifar10@d5489e8 resnet.py, trainer.py",
        licence="BSD-2-Clause",
        container="state_dict",
        dropped=("linear.",),
        evidence=("linear.", "layer3.0.conv1."),
        rename=with_counters,
        image_size=32,
    ),
    BARE,
    replace(BARE, name="bare-state-dict", container="state_dict"),
    replace(BARE, name="bare-model", container="model"),
)
"""In the order in which they are tried."""


def _of(name: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == name)


NAMED = (
    Layout(
        name="byol-convert",
        method="BYOL",
        source="ajtejankar/byol-convert@7497e7f convert.py, resnet.py",
        licence="Apache-2.0 (deepmind/deepmind-research)",
        dropped=("fc.",),
        rename=with_counters,
        same_padding=True,
    ),
    replace(BARE, name="dino-backbone", method="DINO", source=_of("dino").source, licence="Apache-2.0"),
    replace(BARE, name="vicreg-backbone", method="VICReg", source=_of("vicreg").source, licence="MIT"),
    replace(
        BARE, name="barlow-twins-backbone", method="Barlow Twins", source=_of("barlow-twins").source, licence="MIT"
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
        mean=UNCHANGED[0],
        std=UNCHANGED[1],
    ),
)
"""Files whose names do not show the method: the user says which."""
