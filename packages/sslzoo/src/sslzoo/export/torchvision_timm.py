"""Export to torchvision and timm: the state dict, and Python code that builds `network`, which loads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genviews_core.backbones import Architecture, channels_of
from genviews_core.backbones.names import TORCHVISION_RESNETS, WIDE_CHANNEL_BLOCKS, WIDENED
from genviews_core.tensor_files import save_tensors, save_torch
from sslzoo.export.plain_resnet import plain_resnet, same_features, tensors_of

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

TRANSFORMER_NAMES = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
)
"""timm's names of a vision transformer's tensors, and torchvision's."""
NO_CLASSIFIER = "network.fc = torch.nn.Identity()"
NO_POOLING = "network.maxpool = torch.nn.Identity()"


def to_torchvision(backbone: nn.Module, path: str | Path | None = None) -> dict[str, Tensor]:
    """Return the state dict for the network of torchvision that `torchvision_code` builds.

    Supports ResNets of torchvision, identical ones of timm, resnet10 and widened ResNets, all with or without the CIFAR
    stem, and vision transformers.

    Args:
        backbone: a network of create_backbone.
        path: file to write as well, for torch.load (.pth) or safetensors (.safetensors).

    Raises:
        ValueError: torchvision has no such network, or its features differ.
    """
    return _write(_convert_for_torchvision(backbone)[0], path)


def torchvision_code(backbone: nn.Module) -> str:
    """Return Python code that builds `network`, which loads the state dict of to_torchvision.

    Raises:
        ValueError: see to_torchvision.
    """
    return _convert_for_torchvision(backbone)[1]


def to_timm(backbone: nn.Module, path: str | Path | None = None) -> dict[str, Tensor]:
    """Return the state dict for the network of timm that `timm_code` builds.

    torchvision's ResNets map to timm's of the same names, with or without the CIFAR stem; resnet10 and widened ResNets
    are built from timm's blocks; timm networks are unchanged.

    Args:
        backbone: a network of create_backbone.
        path: file to write as well, for torch.load (.pth) or safetensors (.safetensors).

    Raises:
        ValueError: timm has no such network.
    """
    if not _is_timm(backbone):
        timm_resnet_code(plain_resnet(backbone, "timm"))
    return _write(tensors_of(backbone), path)


def timm_code(backbone: nn.Module) -> str:
    """Return Python code that builds `network`, which loads the state dict of to_timm.

    Raises:
        ValueError: timm has no such network, or it was created with options that it does not reveal.
    """
    return _timm_network_code(backbone) if _is_timm(backbone) else timm_resnet_code(plain_resnet(backbone, "timm"))


def _write(tensors: dict[str, Tensor], path: str | Path | None) -> dict[str, Tensor]:
    """Write the tensors in the format of the path's suffix, and return them."""
    if path is not None and Path(path).suffix == ".safetensors":
        save_tensors(path, tensors)
    elif path is not None:
        save_torch(path, tensors)
    return tensors


def _convert_for_torchvision(backbone: nn.Module) -> tuple[dict[str, Tensor], str]:
    if _is_timm_transformer(backbone):
        return _convert_transformer(backbone)  # pyright: ignore[reportArgumentType]
    return tensors_of(backbone), torchvision_resnet_code(plain_resnet(backbone, "torchvision"))


def _is_timm_transformer(backbone: nn.Module) -> bool:
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(backbone, VisionTransformer)


def _is_timm(backbone: nn.Module) -> bool:
    return type(backbone).__module__.startswith("timm.") or _is_timm_transformer(backbone)


def _convert_transformer(backbone: VisionTransformer) -> tuple[dict[str, Tensor], str]:
    from torchvision.models import VisionTransformer as TorchvisionTransformer

    block, projection = backbone.blocks[0], backbone.patch_embed.proj
    arguments = {
        "image_size": backbone.patch_embed.img_size[0],  # pyright: ignore[reportOptionalSubscript]
        "patch_size": projection.weight.shape[-1],
        "num_layers": len(backbone.blocks),
        "num_heads": block.attn.num_heads,  # pyright: ignore
        "hidden_dim": backbone.embed_dim,
        "mlp_dim": block.mlp.fc1.out_features,  # pyright: ignore
    }
    tensors = {}
    for name, tensor in tensors_of(backbone).items():
        for pattern, replacement in TRANSFORMER_NAMES:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    twin = TorchvisionTransformer(**arguments)
    twin.heads = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    shape = (projection.in_channels, backbone.embed_dim, *[arguments["patch_size"]] * 2)
    if shape[0] != 3:
        twin.conv_proj = nn.Conv2d(*shape)
    fits = {name: tensor.shape for name, tensor in twin.state_dict().items()} == {
        n: t.shape for n, t in tensors.items()
    }
    if fits:
        twin.load_state_dict(tensors)
    if not fits or not same_features(backbone, twin, arguments["image_size"], shape[0]):
        raise ValueError("expected a plain vision transformer for torchvision, got one with other tensors or features")
    text = ", ".join(f"{name}={value}" for name, value in arguments.items())
    lines = [f"network = torchvision.models.VisionTransformer({text})", "network.heads = torch.nn.Identity()"]
    lines += [f"network.conv_proj = torch.nn.Conv2d{shape}"] if shape[0] != 3 else []
    return tensors, "\n".join(lines)


def _timm_network_code(backbone: nn.Module) -> str:
    import timm

    name: str = backbone.pretrained_cfg["architecture"]  # pyright: ignore
    options = _transformer_options(backbone) if _is_timm_transformer(backbone) else {}
    stem = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    if stem.in_channels != 3:
        options["in_chans"] = stem.in_channels
    with torch.device("meta"):
        twin = timm.create_model(name, num_classes=0, **options)
    ours, theirs = ({name: t.shape for name, t in network.state_dict().items()} for network in (backbone, twin))
    if ours != theirs:
        raise ValueError(f"{name} was created with options that it does not reveal; see backbone.json")
    text = "".join(f", {option}={value}" for option, value in options.items())
    return f'network = timm.create_model("{name}", num_classes=0{text})'


def _transformer_options(backbone: Any) -> dict[str, Any]:
    return {
        "img_size": backbone.patch_embed.img_size[0],
        "patch_size": backbone.patch_embed.patch_size[0],
        "embed_dim": backbone.embed_dim,
        "depth": len(backbone.blocks),
        "num_heads": backbone.blocks[0].attn.num_heads,
    }


def torchvision_resnet_code(architecture: Architecture) -> str:
    """Return code for torchvision; other widths are built with torchvision's own `_make_layer`.

    Raises:
        ValueError: torchvision cannot build this network.
    """
    if architecture["name"] in TORCHVISION_RESNETS:
        lines = [f"network = torchvision.models.{architecture['name']}()", NO_CLASSIFIER]
        return "\n".join(lines + (_cifar_stem_code(architecture, 64) or _channels_code(architecture, 64)))
    block, width, blocks = _stages(architecture, "torchvision")
    lines = [
        f"Block = torchvision.models.resnet.{block}",
        f"network = torchvision.models.ResNet(Block, {blocks})",
        NO_CLASSIFIER,
        *_stem_code(architecture, width),
        f"network.inplanes = {width}",
        f"for stage, blocks in enumerate({blocks}):",
        f"    layer = network._make_layer(Block, {width} * 2**stage, blocks, stride=2 if stage else 1)",
        '    setattr(network, f"layer{stage + 1}", layer)',
    ]
    return "\n".join(lines)


def timm_resnet_code(architecture: Architecture) -> str:
    """Return code for timm; other widths are built with timm's own `make_blocks`.

    Raises:
        ValueError: timm cannot build this network.
    """
    if architecture["name"] in TORCHVISION_RESNETS:
        lines = [f'network = timm.create_model("{architecture["name"]}", num_classes=0)']
        return "\n".join(lines + (_cifar_stem_code(architecture, 64) or _channels_code(architecture, 64)))
    block, width, blocks = _stages(architecture, "timm")
    channels = [width * 2**stage for stage in range(4)]
    lines = [
        f"Block, channels = timm.models.resnet.{block}, {channels}",
        f"network = timm.models.resnet.ResNet(Block, {blocks}, num_classes=0, channels=channels)",
        *_stem_code(architecture, width),
        f"for name, stage in timm.models.resnet.make_blocks([Block] * 4, channels, {blocks}, {width})[0]:",
        "    setattr(network, name, stage)",
    ]
    return "\n".join(lines)


def _stages(architecture: Architecture, library: str) -> tuple[str, int, list[int]]:
    """Return the block class, the stem channels and the number of blocks per stage."""
    name = architecture["name"]
    if name == "resnet10":
        return "BasicBlock", architecture["width"], [1, 1, 1, 1]
    if name == WIDENED and not architecture.get("same_padding"):
        return "Bottleneck", 64 * architecture["widen"], list(WIDE_CHANNEL_BLOCKS[architecture["depth"]])
    raise ValueError(f"{library} has no {name}; keep the backbone folder")


def _stem_code(architecture: Architecture, width: int) -> list[str]:
    norm = f"network.bn1 = torch.nn.BatchNorm2d({width})"
    plain = f"network.conv1 = torch.nn.Conv2d({channels_of(architecture)}, {width}, 7, 2, 3, bias=False)"
    return [*(_cifar_stem_code(architecture, width) or [plain]), norm]


def _cifar_stem_code(architecture: Architecture, width: int) -> list[str]:
    """Return the code for `cifar_stem`; empty without it."""
    if not architecture.get("cifar_stem"):
        return []
    stride, padding = architecture.get("stem_stride", 1), architecture.get("stem_padding", 1)
    stem = f"{channels_of(architecture)}, {width}, 3, {stride}, {padding}"
    return [f"network.conv1 = torch.nn.Conv2d({stem}, bias=False)", NO_POOLING]


def _channels_code(architecture: Architecture, width: int) -> list[str]:
    """Return the code for a first convolution of other than three channels; empty for three."""
    return _stem_code(architecture, width)[:1] if channels_of(architecture) != 3 else []
