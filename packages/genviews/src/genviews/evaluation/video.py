"""Instances followed through videos by the features of a frozen backbone: J and F on DAVIS 2017.

    uv run apps/evaluate video BACKBONE --data DATA/DAVIS
    uv run apps/evaluate video BACKBONE --data DATA/DAVIS --masks found    # for the official evaluation

DATA/DAVIS holds ImageSets, JPEGImages and Annotations. Labels are carried as in
https://github.com/facebookresearch/dino, eval_video_segmentation.py, and measured as in
https://github.com/davisvideochallenge/davis2017-evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from genviews.evaluation.context import OneBackbone, keep_results, open_on_device
from ssl_eval.video.davis import evaluate_davis, read_davis, unusual_masks
from ssl_eval.video.davis_metrics import ObjectScores, davis_table
from ssl_eval.video.mask_propagation import Frames, PropagationConfig


@dataclass(frozen=True, kw_only=True)
class Video(OneBackbone):
    """Videos, with a mask of every frame; only the first is given to the backbone."""

    data: Path
    """The folder that holds ImageSets, JPEGImages and Annotations."""
    subset: str = "val"
    """train or val."""
    resolution: str = "480p"
    """The folder in JPEGImages and Annotations."""
    short_side: int = 480
    """Of the frames that the backbone sees, pixels."""
    frames: int = 7
    """Before the one that is asked about, beside the first one."""
    radius: int = 12
    """Of the window of places that are looked at."""
    neighbours: int = 5
    """The most alike places, whose labels count."""
    workers: tyro.conf.Suppress[int] = 0  # a frame is read when the one before has its mask
    masks: Path | None = None
    """A folder to write the masks to."""


def follow(options: Video) -> None:
    """Measure and append the results."""
    videos = read_davis(options.data, subset=options.subset, resolution=options.resolution)
    propagation = PropagationConfig(frames=options.frames, radius=options.radius, neighbours=options.neighbours)
    remarks = unusual_masks(videos)
    opened = open_on_device(options)
    for remark in remarks if opened.worker.is_main else ():
        Console(stderr=True).print(remark, highlight=False, markup=False)
    followed = evaluate_davis(
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
        on_video=_tell,
        on_unreadable=opened.on_unreadable,
    )
    protocol = f"{options.subset} {options.resolution} side={options.short_side} frames={options.frames}"
    protocol += f" radius={options.radius} neighbours={options.neighbours}"
    data = options.data.resolve().name
    keep_results(options, opened, task="video", protocol=protocol, data=data, percent=davis_table(followed))


def _tell(name: str, objects: Sequence[ObjectScores]) -> None:
    table = davis_table(objects)
    Console(stderr=True).print(f"{name}: J {table['J-Mean']:.2f}, F {table['F-Mean']:.2f}, {len(objects)} objects")


def main(arguments: Sequence[str]) -> None:
    """Read the command line and run it."""
    follow(tyro.cli(Video, args=arguments, prog="video", description=__doc__))
