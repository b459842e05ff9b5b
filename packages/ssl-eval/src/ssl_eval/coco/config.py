"""Configuration of a Mask R-CNN training: the variant of the network, the schedule, the sizes of the images."""

from bisect import bisect_right
from dataclasses import dataclass, replace

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
"""None on batch norms. Both from facebookresearch/detectron2@02b5c4e detectron2/config/defaults.py SOLVER."""
WARMUP_FACTOR = 1 / 1000
"""Factor of the learning rate at step 0, from the same file."""
SCHEDULES = {"1x": 90_000, "2x": 180_000}
"""Number of steps: detectron2@02b5c4e configs/Base-RCNN-FPN.yaml, facebookresearch/moco@132aea9
detection/configs/coco_R_50_C4_2x.yaml."""
VARIANTS = {
    "fpn": "detectron2@02b5c4e configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml, with SyncBN in backbone "
    "and FPN, FREEZE_AT 0",
    "fpn-heads": "WXinlong/DenseCL@b64bbb6 benchmarks/detection/configs/R_50_FPN_1x.yaml, zdaxie/PixPro@e390d6b "
    "transfer/detection/configs/COCO_R_50_FPN_1x.yaml",
    "c4": "facebookresearch/moco@132aea9 detection/configs/{Base-RCNN-C4-BN,coco_R_50_C4_2x}.yaml, train_net.py",
}
"""The networks: `fpn` has synchronized batch norm in backbone and FPN, `fpn-heads` also in a box head of four
convolutions and in the mask head, `c4` in the backbone and once more after its last stage, which is the box head."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Training and test settings of Mask R-CNN.

    Attributes:
        variant: one of VARIANTS.
        schedule: one of SCHEDULES; defines the shape if `iterations` differ.
        iterations: number of steps.
        batch_size: images per step, over all processes.
        learning_rate: peak learning rate.
        warmup: steps of linear warmup.
        short_edges: lengths in pixels from which the short edge of each training image is drawn.
        short_edge_test: length of the short edge in the test.
        long_edge: maximum length of the long edge in pixels.
        precise_norm: number of batches from which batch norm statistics are computed after training.
        channels: channels of the pyramid and of the heads' convolutions.
        features: width of the box head's fully connected layers, four times `channels`.
        rois_per_image: regions per image that the heads are trained on.
        mean: mean of the pixels in RGB, from 0 to 255.
        std: standard deviation of the pixels.
    """

    variant: str = "fpn"
    schedule: str = "1x"
    iterations: int = SCHEDULES["1x"]
    batch_size: int = 16
    learning_rate: float = 0.02
    warmup: int = 1000
    short_edges: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    short_edge_test: int = 800
    long_edge: int = 1333
    precise_norm: int = 0
    channels: int = 256
    features: int = 1024
    rois_per_image: int = 512
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"expected a variant of {', '.join(VARIANTS)}, got {self.variant!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"expected a schedule of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        counts = (self.iterations, self.batch_size, *self.short_edges, self.short_edge_test, self.long_edge)
        if min(*counts, self.channels, self.rois_per_image) < 1:
            raise ValueError(
                f"expected iterations, batch size, edges, channels and rois_per_image of 1 or more, got {self}"
            )

    @property
    def lr_milestones(self) -> tuple[int, int]:
        """Steps at which the learning rate is divided by 10: 60,000 and 80,000 of 90,000."""
        return round(self.iterations * 2 / 3), round(self.iterations * 8 / 9)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        grown = min(step / self.warmup, 1.0) if self.warmup else 1.0
        return (
            self.learning_rate * (WARMUP_FACTOR * (1 - grown) + grown) * 0.1 ** bisect_right(self.lr_milestones, step)
        )

    @property
    def label(self) -> str:
        """Label of its results, such as "fpn 1x" or "fpn-heads iterations=20 batch=4 edge=160"."""
        published = detection_config(self.variant, self.schedule)
        parts = [self.variant] + [self.schedule] * (self.iterations == published.iterations)
        changes = {
            "iterations": (self.iterations, published.iterations),
            "batch": (self.batch_size, published.batch_size),
            "rate": (self.learning_rate, round(published.learning_rate * self.batch_size / published.batch_size, 9)),
            "edge": (self.short_edge_test, published.short_edge_test),
            "channels": (self.channels, published.channels),
            "regions": (self.rois_per_image, published.rois_per_image),
        }
        return " ".join(parts + [f"{name}={value:g}" for name, (value, usual) in changes.items() if value != usual])


def detection_config(
    variant: str = "fpn",
    schedule: str = "1x",
    *,
    iterations: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    short_edge: int | None = None,
    channels: int | None = None,
    rois_per_image: int | None = None,
) -> DetectionConfig:
    """Return a published configuration, or a smaller one of the same shape.

    Args:
        variant: one of VARIANTS.
        schedule: one of SCHEDULES.
        iterations: instead of the schedule's; the learning rate milestones scale with it, and the warmup is at most
            a tenth.
        batch_size: instead of 16; scales the learning rate.
        learning_rate: instead of the scaled one.
        short_edge: in training and test, instead of 640 to 800 and 800; scales the long edge.
        channels: of pyramid and heads, instead of 256; the box head has four times as many features.
        rois_per_image: regions per image that the heads are trained on, instead of 512.

    Raises:
        ValueError: there is no such variant or schedule, or a number is below 1.
    """
    # PRECISE_BN: 200 batches by detectron2's default, in the configurations of `fpn-heads` and `c4`.
    recipe = DetectionConfig(variant=variant, schedule=schedule, precise_norm=0 if variant == "fpn" else 200)
    total = SCHEDULES[schedule] if iterations is None else iterations
    images = recipe.batch_size if batch_size is None else batch_size
    rate = round(recipe.learning_rate * images / recipe.batch_size, 9) if learning_rate is None else learning_rate
    recipe = replace(
        recipe,
        iterations=total,
        batch_size=images,
        learning_rate=rate,
        warmup=min(recipe.warmup, total // 10),
        precise_norm=min(recipe.precise_norm, total),
    )
    if short_edge is not None:
        long_edge = round(recipe.long_edge * short_edge / recipe.short_edge_test)
        recipe = replace(recipe, short_edges=(short_edge,), short_edge_test=short_edge, long_edge=long_edge)
    if channels is not None:
        recipe = replace(recipe, channels=channels, features=4 * channels)
    return recipe if rois_per_image is None else replace(recipe, rois_per_image=rois_per_image)
