"""Evaluate video object segmentation by label propagation with frozen features: J and F on DAVIS 2017."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from genviews.evaluation.context import keep_results, open_on_device
from genviews.evaluation.options import VideoOptions
from ssl_eval.video.davis import evaluate_davis, read_davis, unusual_masks
from ssl_eval.video.davis_metrics import ObjectScores, davis_table
from ssl_eval.video.mask_propagation import Frames, PropagationConfig


def run(options: VideoOptions) -> None:
    """Evaluate and append the results."""
    videos = read_davis(options.data, subset=options.subset, resolution=options.resolution)
    propagation = PropagationConfig(frames=options.frames, radius=options.radius, neighbors=options.neighbors)
    remarks = unusual_masks(videos)
    opened = open_on_device(options)
    for remark in remarks if opened.context.is_main else ():
        Console(stderr=True).print(remark, highlight=False, markup=False)
    scores = evaluate_davis(
        opened.network,
        videos,
        Frames(
            mean=opened.images["mean"],
            std=opened.images["std"],
            short_side=options.short_side,
            device=opened.device,
        ),
        propagation,
        masks=options.masks,
        group=opened.group,
        on_video=_log,
        on_unreadable=opened.on_unreadable,
    )
    protocol = f"{options.subset} {options.resolution} side={options.short_side} frames={options.frames}"
    protocol += f" radius={options.radius} neighbours={options.neighbors}"
    data = options.data.resolve().name
    keep_results(options, opened, task="video", protocol=protocol, data=data, percent=davis_table(scores))


def _log(name: str, objects: Sequence[ObjectScores]) -> None:
    table = davis_table(objects)
    Console(stderr=True).print(f"{name}: J {table['J-Mean']:.2f}, F {table['F-Mean']:.2f}, {len(objects)} objects")
