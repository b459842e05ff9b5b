"""Names of the backbones, without importing timm or torchvision, which takes seconds."""

TIMM = "timm/"
WIDENED = "widened_resnet"
TORCHVISION_RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)
"""Names in torchvision.models; timm uses the same names for these networks."""
CIFAR_RESNETS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}
"""Name: number of blocks in each of the three stages."""
MOCO_VITS = {
    "moco_vit_small": ("vit_small_patch16_224", 12),
    "moco_vit_base": ("vit_base_patch16_224", 12),
}
"""Name: timm model and number of heads, 12 where timm's small model has 6 (facebookresearch/moco-v3 vits.py)."""
DINO_VITS = {
    "dino_vit_tiny": ("vit_tiny_patch16_224", 192, 3),
    "dino_vit_small": ("vit_small_patch16_224", 384, 6),
    "dino_vit_base": ("vit_base_patch16_224", 768, 12),
}
"""Name: timm model, width and number of heads (facebookresearch/dino@7c446df vision_transformer.py)."""
WIDE_CHANNEL_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
"""Depth of a widened ResNet: bottlenecks per stage (facebookresearch/vicreg@4e12602 resnet.py,
Separius/SimCLRv2-Pytorch@f4c2f41 resnet.py)."""
