"""Evaluate a frozen backbone on semantic segmentation: a linear head, mIoU, data in PASCAL VOC 2012's layout."""

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
"""Pretraining image size in pixels for which the published crop is 512 px; the crop scales with the image size."""


def run(options: SegmentationOptions) -> None:
    """Train the head, evaluate, and append the results."""
    if options.classes < 2 or options.steps < 1:
        raise ValueError(f"expected at least 2 --classes and 1 of --steps, got {options.classes} and {options.steps}")
    for name in ("batch_size", "crop", "short"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(
                f"expected --{name.replace('_', '-')} of 1 or more, got {given}; leave it out for the default"
            )
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
    """Train the head and return the confusion matrix of the test pixels."""
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

    def log(done: int, loss: float) -> None:
        if done % 100 == 0 or done == protocol.steps:
            shown.print(f"step {done}/{protocol.steps}, loss {loss:.3f}")

    head = train_segmentation(maps, crops.batches, seed=options.seed, resume=resume, on_step=log, **same)
    images = TestImages(test, protocol, normalisation, on_unreadable=opened.on_unreadable, **place)
    return segmentation_confusion(maps, head, images, **same)


def _protocol(options: SegmentationOptions, maps: FeatureMapExtractor, size: int) -> SegmentationProtocol:
    """Return the published protocol with sizes that fit the network's input size."""
    patches = max(1, round(size * PUBLISHED.crop / SIDE / maps.patch))
    crop = options.crop or patches * maps.patch
    short = options.short or crop
    if crop % maps.patch:
        raise ValueError(f"expected --crop in multiples of the patch size, {maps.patch} px, got {crop}; change it")
    if short < crop:
        raise ValueError(f"expected --short of at least the crop size, {crop} px, got {short}; give {crop} or more")
    return replace(
        PUBLISHED,
        steps=options.steps,
        batch_size=options.batch_size,
        crop=crop,
        short=short,
        stride=round(crop * PUBLISHED.stride / PUBLISHED.crop),
    )


def _label(options: SegmentationOptions, protocol: SegmentationProtocol) -> str:
    """Return the label of the settings that results depend on."""
    parts = ["linear head", f"crop={protocol.crop}"]
    for name in ("steps", "batch_size", "short"):
        usual = protocol.crop if name == "short" else getattr(PUBLISHED, name)
        parts += [f"{name}={getattr(protocol, name)}"] if getattr(protocol, name) != usual else []
    parts += [f"layer={options.layer}"] if options.layer else []
    parts += [f"train={options.train_split}"] if options.train_split != "train" else []
    return " ".join(parts)
