"""MoCo v3 vision transformers: timm's, with fixed position embeddings, frozen patch projection and MoCo v3's init.

Shapes: L patches row by row, D features.
"""

import math

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from genviews_core.backbones.names import MOCO_VITS


def create_moco_vit(
    name: str, *, image_size: int | None = None, freeze_patch_embed: bool = True, **options
) -> VisionTransformer:
    """Create a vision transformer as facebookresearch/moco-v3@c349e6e vits.py does, https://arxiv.org/abs/2104.02057.

    Its output is the class token after the last norm; state dict keys are timm's.

    Args:
        name: a key of MOCO_VITS.
        image_size: pixels; None for 224.
        freeze_patch_embed: keep the patch projection at its random initialization, as all ViT commands of MoCo v3's
            CONFIG.md do.
        options: passed on to timm (`patch_size=4`, `depth=6`, `embed_dim=192`, `dynamic_img_size=True`).
    """
    timm_name, heads = MOCO_VITS[name]
    size = {} if image_size is None else {"img_size": image_size}
    network = timm.create_model(timm_name, pretrained=False, num_classes=0, **{"num_heads": heads, **size, **options})
    assert isinstance(network, VisionTransformer)
    assert network.pos_embed is not None and network.num_prefix_tokens == 1
    _initialize(network)
    rows, columns = network.patch_embed.grid_size  # pyright: ignore[reportGeneralTypeIssues]
    positions = sincos_positions(rows, columns, network.embed_dim)
    network.pos_embed = nn.Parameter(torch.cat([torch.zeros(1, network.embed_dim), positions])[None])
    network.pos_embed.requires_grad_(False)
    network.patch_embed.requires_grad_(not freeze_patch_embed)
    return network


def sincos_positions(rows: int, columns: int, dim: int, temperature: float = 10000.0) -> Float[Tensor, "L D"]:
    """Return sin and cos of row/T^w, then of column/T^w, w = 0, 4/D, 8/D, ...: https://arxiv.org/abs/1706.03762 in 2-d.

    Raises:
        ValueError: the dimension is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"expected an embedding dimension divisible by 4 for fixed 2-d positions, got {dim}")
    frequencies = 1 / temperature ** (torch.arange(dim // 4) / (dim // 4))
    grids = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    row, column = (grid.flatten()[:, None] * frequencies for grid in grids)
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)


@torch.no_grad()
def _initialize(network: VisionTransformer) -> None:
    """Initialize Xavier-uniform (query, key and value separately, patch projection) and zero biases, as vits.py."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            fan_out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            _xavier_(module, module.in_features, fan_out)
    projection = network.patch_embed.proj
    assert isinstance(projection, nn.Conv2d)
    _xavier_(projection, projection.weight[0].numel(), network.embed_dim)
    nn.init.normal_(network.cls_token, std=1e-6)  # pyright: ignore[reportArgumentType]


def _xavier_(layer: nn.Linear | nn.Conv2d, fan_in: int, fan_out: int) -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -bound, bound)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
