"""Create a backbone, which maps each image to one feature vector, by name."""

import difflib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genviews_core.backbones.names import CIFAR_RESNETS, DINO_VITS, MOCO_VITS, TIMM, TORCHVISION_RESNETS, WIDENED
from genviews_core.backbones.pretrained import first_line, from_hub

RGB = 3


def create_backbone(
    name: str, *, cifar_stem: bool = False, image_size: int | None = None, in_chans: int = 3, **options: Any
) -> nn.Module:
    """Create a network without a classifier, Float[B,C,H,W] -> Float[B,D], with `.num_features` = D.

    Weights are random unless torchvision's or timm's are requested. State dict keys match torchvision or timm, so the
    weights can be loaded there.

    Args:
        name: a torchvision ResNet ("resnet18", "resnet50", "resnext50_32x4d", ...), "resnet10" (SmallResNet),
            "resnet20" to "resnet110" (CifarResNet), "widened_resnet" (WideChannelResNet), "moco_vit_small" or
            "moco_vit_base" (MoCo v3), "dino_vit_tiny", "dino_vit_small" or "dino_vit_base" (DINO, for images of any
            size), or "timm/<any name>".
        cifar_stem: for ResNets: a 3x3 stride-1 first convolution and no max pooling, for images of 32 to 64 px.
        image_size: pixels; for timm networks with a fixed input size (vision transformers). The others take any size.
        in_chans: C. Pretrained weights of three channels are adapted by `adapt_first_layer`.
        options: passed on to the constructor: torchvision's (`zero_init_residual=True`, `weights="DEFAULT"`),
            `stem_padding=2` for the CIFAR stem of solo-learn, SmallResNet's (`width=32`), create_moco_vit's
            (`freeze_patch_embed=False`), or timm's (`drop_path_rate=0.1`, also for DINO; `dynamic_img_size=True`,
            `pretrained=True`).

    Raises:
        ValueError: the name is unknown (the message lists close matches), the network does not have an option, or the
            weights cannot be downloaded.
    """
    if cifar_stem and (name.startswith(TIMM) or name in (*MOCO_VITS, *DINO_VITS, *CIFAR_RESNETS, WIDENED)):
        raise ValueError(
            f"expected resnet10 or a ResNet of torchvision with cifar_stem, but {name} has its own stem; leave it out"
        )
    if name == "resnet10" or name in TORCHVISION_RESNETS:
        options["cifar_stem"] = cifar_stem
    if in_chans != RGB:
        options["in_chans"] = in_chans
    try:
        return _build(name, image_size, options)
    except TypeError as error:
        raise ValueError(f"{name} takes no such options ({first_line(error)})") from error


def _build(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    """Build a network, importing only the library it needs: importing torchvision or timm takes seconds."""
    if name.startswith(TIMM):
        return _from_timm(name.removeprefix(TIMM), image_size, options)
    if name in MOCO_VITS:
        from genviews_core.backbones.moco_vit import create_moco_vit

        return create_moco_vit(name, image_size=image_size, **options)
    if name in DINO_VITS:
        from genviews_core.backbones.dino_vit import create_dino_vit

        return create_dino_vit(name, image_size=image_size, **options)
    if name in CIFAR_RESNETS:
        from genviews_core.backbones.resnets import CifarResNet

        return CifarResNet(CIFAR_RESNETS[name], **options)
    if name == WIDENED:
        from genviews_core.backbones.resnets import WideChannelResNet

        return WideChannelResNet(**options)
    if name == "resnet10":
        from genviews_core.backbones.resnets import SmallResNet

        return SmallResNet(**options)
    if name in TORCHVISION_RESNETS:
        return _torchvision_resnet(name, **options)
    raise _unknown(name)


def _torchvision_resnet(
    name: str, cifar_stem: bool = False, stem_padding: int = 1, in_chans: int = 3, **options: Any
) -> nn.Module:
    import torchvision

    if options.get("weights") is None:
        network = torchvision.models.get_model(name, **options)
    else:
        with from_hub(name):
            network = torchvision.models.get_model(name, **options)
    assert isinstance(network, torchvision.models.ResNet)
    network.num_features = network.fc.in_features  # pyright: ignore
    network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    if cifar_stem:
        network.conv1 = nn.Conv2d(in_chans, 64, 3, 1, stem_padding, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    elif in_chans != RGB:
        stem = nn.Conv2d(in_chans, 64, 7, 2, 3, bias=False)
        if options.get("weights") is None:
            nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        else:
            stem.weight = nn.Parameter(adapt_first_layer(network.conv1.weight.detach(), in_chans))
        network.conv1 = stem
    return network


def adapt_first_layer(weight: Float[Tensor, "O 3 h w"], channels: int) -> Float[Tensor, "O C h w"]:
    """Return the weights of a first convolution or patch embedding of three channels for C channels, as timm does.

    The sum over the channels for one; otherwise red, green, blue, red, ... times 3 / C, so that outputs keep their size
    (`timm.models.adapt_input_conv`).
    """
    from timm.models import adapt_input_conv

    return adapt_input_conv(channels, weight)


def _from_timm(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise _unknown(TIMM + name)
    config = timm.get_pretrained_cfg(name)
    if image_size is not None and config is not None and config.fixed_input_size:
        options = {"img_size": image_size, **options}
    if options.get("pretrained"):
        with from_hub(TIMM + name):
            network = timm.create_model(name, num_classes=0, **options)
    else:
        network = timm.create_model(name, num_classes=0, **options)
    network.num_features = getattr(network, "head_hidden_size", network.num_features)
    return network


def _unknown(name: str) -> ValueError:
    import timm

    own = ["resnet10", *CIFAR_RESNETS, WIDENED, *MOCO_VITS, *DINO_VITS]
    known = [*own, *TORCHVISION_RESNETS, *(TIMM + other for other in timm.list_models())]
    near = difflib.get_close_matches(name, known, n=3)
    kinds = f"choose a torchvision ResNet, {', '.join(own)}, or timm/<name>"
    hint = f"did you mean {' or '.join(near)}?" if near else kinds
    return ValueError(f"expected the name of a backbone, got {name!r}; {hint}")


def last_map(network: nn.Module, images: Tensor) -> Any:
    """Return the features before pooling: a map Float[B,D,rows,columns], or tokens Float[B,L,D] without prefix tokens.

    Args:
        network: created by `create_backbone`.
        images: Float[B,C,H,W], normalized.
    """
    if hasattr(network, "forward_features"):
        return _timm_feature_map(network, images)
    if hasattr(network, "maps"):
        return network.maps(images)  # pyright: ignore[reportCallIssue]
    for name, child in network.named_children():
        if name == "avgpool":
            return images
        images = child(images)
    raise ValueError(f"{type(network).__name__} has no last map: expected a backbone of create_backbone")


def _timm_feature_map(network: nn.Module, images: Tensor) -> Any:
    features = network.forward_features(images)  # pyright: ignore[reportCallIssue]
    if not isinstance(features, torch.Tensor):
        return features
    if features.ndim == 4:
        channels_last = features.shape[1] != network.num_features and features.shape[3] == network.num_features
        return features.permute(0, 3, 1, 2) if channels_last else features
    return features[:, getattr(network, "num_prefix_tokens", 0) :]
