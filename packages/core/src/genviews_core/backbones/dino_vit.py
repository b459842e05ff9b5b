"""DINO vision transformers: timm's, with position embeddings interpolated as DINO does for images of any size.

Shapes: B images, rows x columns patches, L = 1 + rows * columns tokens, D features.
"""

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from genviews_core.backbones.names import DINO_VITS
from genviews_core.backbones.vit_positions import resize_positions


class DINOViT(VisionTransformer):
    """timm's vision transformer with DINO's interpolation of position embeddings; state dict keys are timm's."""

    def _pos_embed(self, x: Float[Tensor, "B rows columns D"]) -> Float[Tensor, "B L D"]:
        assert self.pos_embed is not None and self.cls_token is not None
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return self.pos_drop(tokens + resize_positions(self.pos_embed, x.shape[1], x.shape[2]))


def create_dino_vit(name: str, *, image_size: int | None = None, **options) -> DINOViT:
    """Create a vision transformer as facebookresearch/dino@7c446df does, https://arxiv.org/abs/2104.14294.

    Its output is the class token after the last norm; height and width of images must be multiples of the patch size.

    Args:
        name: a key of DINO_VITS.
        image_size: image size in pixels for which the position embeddings are created; None for 224.
        options: timm's (`patch_size=8`, `depth=6`, `drop_path_rate=0.1`).
    """
    timm_name, width, heads = DINO_VITS[name]
    shape = {"img_size": image_size or 224, "embed_dim": width, "num_heads": heads, **options}
    network = DINOViT(num_classes=0, global_pool="token", dynamic_img_size=True, **shape)
    network.pretrained_cfg = {"architecture": timm_name}  # pyright: ignore[reportArgumentType]
    assert network.cls_token is not None
    nn.init.trunc_normal_(network.cls_token, std=0.02)  # timm uses 1e-6
    return network
