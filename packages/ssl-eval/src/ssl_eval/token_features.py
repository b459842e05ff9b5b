"""What DINO's linear protocol looks at in a vision transformer: the class tokens of its last blocks.

Shapes: b batch, t tokens, d token width, f feature width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_eval.any_size import prefix_of


@dataclass(frozen=True, kw_only=True)
class ClassTokens:
    """The normalised class tokens of the last blocks, side by side, and the mean of the last block's patch tokens.

    https://github.com/facebookresearch/dino, eval_linear.py at 7c446df; where it interleaves the class token with the
    mean, they stand one after the other here, which is the same to a linear classifier.

    Attributes:
        blocks: how many.
        average: whether the mean of the patch tokens follows.
    """

    blocks: int
    average: bool = False


class TokenFeatures(nn.Module):
    """A vision transformer, of timm or of DINO's own code, that gives the chosen tokens for its output.

    Raises:
        ValueError: the backbone has no blocks and final norm, too few blocks, or no class token.
    """

    def __init__(self, backbone: nn.Module, chosen: ClassTokens):
        super().__init__()
        blocks, norm = getattr(backbone, "blocks", None), getattr(backbone, "norm", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not isinstance(norm, nn.Module):
            name = type(backbone).__name__
            raise ValueError(f"{name} has no transformer blocks: choose a protocol that takes the network's own output")
        if not 1 <= chosen.blocks <= len(blocks):
            raise ValueError(f"the last {chosen.blocks} blocks are asked for, and the backbone has {len(blocks)}")
        if getattr(backbone, "cls_token", None) is None:
            raise ValueError("the vision transformer has no class token: choose a protocol that takes its own output")
        self.backbone, self.chosen = backbone, chosen
        self.prefix = prefix_of(backbone)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """[class token of each block, the earliest first; mean patch token]."""
        tokens = [self.backbone.norm(each) for each in self._after_blocks(images)]  # pyright: ignore
        parts = [each[:, 0] for each in tokens]
        if self.chosen.average:
            parts.append(tokens[-1][:, self.prefix :].mean(dim=1))
        return torch.cat(parts, dim=1)

    def _after_blocks(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b t d"]]:
        """What the last blocks give."""
        seen: list[Tensor] = []
        blocks = list(self.backbone.blocks)[-self.chosen.blocks :]  # pyright: ignore
        hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in blocks]
        try:
            self.backbone(images)
        finally:
            for hook in hooks:
                hook.remove()
        return seen


def features_of(backbone: nn.Module, chosen: ClassTokens | None) -> nn.Module:
    """The backbone, or what it shows of its tokens."""
    return backbone if chosen is None else TokenFeatures(backbone, chosen)
