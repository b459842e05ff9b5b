"""torchvision's form: the state_dict of a network of torchvision.models, without its classifier."""

import re
from pathlib import Path

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from sslzoo.export.plain_resnet import plain_resnet
from sslzoo.export.resnet_lines import torchvision_lines
from sslzoo.export.same_features import same_features, tensors_of
from sslzoo.export.write import write_tensors

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


def to_torchvision(backbone: nn.Module, path: str | Path | None = None) -> dict[str, Tensor]:
    """The backbone's tensors, as a network of torchvision takes them (`torchvision_network` tells which).

    Supports ResNets of torchvision, identical ones of timm, resnet10 and widened ResNets, all with or without the CIFAR
    stem, and vision transformers.

    Args:
        backbone: any that create_backbone makes.
        path: write them here too, for torch.load (.pth) or safetensors (.safetensors).

    Raises:
        ValueError: torchvision has no such network, or computes other features with these tensors.
    """
    return write_tensors(_convert(backbone)[0], path)


def torchvision_network(backbone: nn.Module) -> str:
    """Lines of Python that make `network`, which takes what to_torchvision gives.

    Raises:
        ValueError: as to_torchvision.
    """
    return _convert(backbone)[1]


def _convert(backbone: nn.Module) -> tuple[dict[str, Tensor], str]:
    if isinstance(backbone, VisionTransformer):
        return _transformer(backbone)
    return tensors_of(backbone), torchvision_lines(plain_resnet(backbone, "torchvision"))


def _transformer(backbone: VisionTransformer) -> tuple[dict[str, Tensor], str]:
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
    fits = {name: tensor.shape for name, tensor in twin.state_dict().items()} == {
        n: t.shape for n, t in tensors.items()
    }
    if fits:
        twin.load_state_dict(tensors)
    if not fits or not same_features(backbone, twin, arguments["image_size"]):
        raise ValueError("torchvision's vision transformer has no place for what this one has beside a plain one's.")
    text = ", ".join(f"{name}={value}" for name, value in arguments.items())
    return tensors, f"network = torchvision.models.VisionTransformer({text})\nnetwork.heads = torch.nn.Identity()"
