"""Measure what a backbone's last map is worth for segmentation: a linear head, mIoU, in PASCAL VOC 2012's layout."""

from __future__ import annotations

from dataclasses import replace

import torch
from rich.console import Console

import sslzoo
from genviews.evaluation.context import LoadedBackbone, keep_results, open_on_device
from genviews.evaluation.options import SegmentationOptions
from genviews_core.distributed import default_group
from ssl_eval.feature_maps import FeatureMapExtractor
from ssl_eval.segmentation.data import TestImages, TrainingCrops
from ssl_eval.segmentation.inference import segmentation_confusion
from ssl_eval.segmentation.mean_iou import class_ious, mean_iou, pixel_accuracy
from ssl_eval.segmentation.training import SegmentationProtocol, train_segmentation
from ssl_eval.segmentation.voc import SegmentationDataset, load_split

PUBLISHED = SegmentationProtocol()
SIDE = 224
"""Of the images that the published crop of 512 px goes with; for others it grows and shrinks with them."""


def run(options: SegmentationOptions) -> None:
    """Train, measure, append the results."""
    if options.classes < 2 or options.steps < 1:
        raise ValueError(f"--classes {options.classes}, --steps {options.steps}: at least 2 classes and 1 step")
    for name in ("batch_size", "crop", "short"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(f"--{name.replace('_', '-')} {given}: give 1 or more")
    train, test = (
        load_split(options.data, split, num_classes=options.classes)
        for split in (options.train_split, options.test_split)
    )
    for split in (train, test):
        split.check_masks()
    opened = open_on_device(options)
    context, images = opened.context, opened.images
    maps = FeatureMapExtractor(opened.network, options.layer)
    protocol = _protocol(options, maps, images["size"])
    counts = _measure(options, maps, protocol, train, test, opened)
    keep_results(
        options,
        opened,
        task="segmentation",
        protocol=_label(options, protocol),
        data=f"{options.data.resolve().name}/{options.test_split}",
        percent={"mIoU": mean_iou(counts), "pixel_accuracy": pixel_accuracy(counts)},
    )
    if context.is_main:
        ious = " ".join(f"{100 * value:.1f}" for value in class_ious(counts).tolist())
        Console().print(f"IoU of the classes: {ious}", highlight=False)
    sslzoo.barrier()


def _measure(
    options: SegmentationOptions,
    maps: FeatureMapExtractor,
    protocol: SegmentationProtocol,
    train: SegmentationDataset,
    test: SegmentationDataset,
    opened: LoadedBackbone,
) -> torch.Tensor:
    """How many test pixels of each class are taken for each."""
    context, normalisation = opened.context, (opened.images["mean"], opened.images["std"])
    place = {"rank": context.rank, "world_size": context.world_size, "workers": options.workers}
    crops = TrainingCrops(train, protocol, normalisation, seed=options.seed, **place)
    shown = Console(stderr=True, quiet=not context.is_main)
    resume = None
    if options.resume is not None:
        named = f"{sslzoo.backbone_hash(maps.backbone)[:12]} segmentation {train.digest()}"
        resume = options.resume / f"{named} {_label(options, protocol)} seed {options.seed}.pt"
    same = {
        "protocol": protocol,
        "num_classes": options.classes,
        "device": context.device,
        "amp": torch.bfloat16 if context.device.type == "cuda" else None,
        "group": default_group(),
    }

    def tell(done: int, loss: float) -> None:
        if done % 100 == 0 or done == protocol.steps:
            shown.print(f"step {done}/{protocol.steps}, loss {loss:.3f}")

    head = train_segmentation(maps, crops.batches, seed=options.seed, resume=resume, on_step=tell, **same)
    images = TestImages(test, protocol, normalisation, on_unreadable=opened.on_unreadable, **place)
    return segmentation_confusion(maps, head, images, **same)


def _protocol(options: SegmentationOptions, maps: FeatureMapExtractor, size: int) -> SegmentationProtocol:
    """The published one at the sides that go with the network's images."""
    patches = max(1, round(size * PUBLISHED.crop / SIDE / maps.patch))
    crop = options.crop or patches * maps.patch
    short = options.short or crop
    if crop % maps.patch:
        raise ValueError(f"--crop {crop} is no multiple of the patches' {maps.patch} px: give another")
    if short < crop:
        raise ValueError(f"--short {short} is less than the windows' {crop} px: give {crop} or more")
    return replace(
        PUBLISHED,
        steps=options.steps,
        batch_size=options.batch_size,
        crop=crop,
        short=short,
        stride=round(crop * PUBLISHED.stride / PUBLISHED.crop),
    )


def _label(options: SegmentationOptions, protocol: SegmentationProtocol) -> str:
    """All that makes two results comparable."""
    parts = ["linear head", f"crop={protocol.crop}"]
    for name in ("steps", "batch_size", "short"):
        usual = protocol.crop if name == "short" else getattr(PUBLISHED, name)
        parts += [f"{name}={getattr(protocol, name)}"] if getattr(protocol, name) != usual else []
    parts += [f"layer={options.layer}"] if options.layer else []
    parts += [f"train={options.train_split}"] if options.train_split != "train" else []
    return " ".join(parts)
