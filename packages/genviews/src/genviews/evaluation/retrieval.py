r"""Retrieval of landmarks by a frozen backbone: mean average precision on revisited Oxford and Paris.

    uv run apps/evaluate retrieval BACKBONE --data DATA/roxford5k
    uv run apps/evaluate retrieval BACKBONE --data DATA/rparis6k --size 512 --multi-scale
    uv run torchrun --standalone --nproc_per_node=8 apps/evaluate retrieval BACKBONE --data DATA/roxford5k \
        --distractors DATA/revisitop1m

DATA/roxford5k holds gnd_roxford5k.pkl and jpg, as https://github.com/filipradenovic/revisitop makes it. The first two
commands are those of https://github.com/facebookresearch/dino, eval_image_retrieval.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from genviews.evaluation.context import OneBackbone, keep_results, open_on_device, prepared_for
from ssl_eval.retrieval.revisited import SCALES, evaluate_revisited, read_distractors, read_revisited


@dataclass(frozen=True, kw_only=True)
class Retrieval(OneBackbone):
    """Queries, a database, and what is right in it."""

    data: Path
    """The folder that holds gnd_<name>.pkl and jpg."""
    size: int = 224
    """The long side of images in pixels; smaller ones stay as they are."""
    multi_scale: bool = False
    """See every image at three scales."""
    crop_queries: bool = False
    """Cut the queries' boxes out, as the revisited protocol does and DINO's script does not."""
    distractors: Path | None = None
    """A folder of further images: revisitop1m with its list, or any."""


def retrieve(options: Retrieval) -> None:
    """Measure and append the results."""
    landmarks = read_revisited(options.data)
    distractors = [] if options.distractors is None else read_distractors(options.distractors)
    opened = open_on_device(options)
    scores = evaluate_revisited(
        opened.network,
        landmarks,
        prepared_for(opened, options),
        size=options.size,
        scales=SCALES if options.multi_scale else (1.0,),
        crop_queries=options.crop_queries,
        distractors=distractors,
    )
    percent = {}
    for difficulty, score in scores.items():
        percent[f"mAP {difficulty}"] = score.mean_average_precision
        percent |= {f"mP@{k} {difficulty}": value for k, value in score.precision.items()}
    protocol = f"size={options.size}" + " multi-scale" * options.multi_scale + " cropped" * options.crop_queries
    protocol += f" distractors={len(distractors)}" if distractors else ""
    data = options.data.resolve().name
    keep_results(options, opened, task="retrieval", protocol=protocol, data=data, percent=percent)


def main(arguments: Sequence[str]) -> None:
    """Read the command line and run it."""
    retrieve(tyro.cli(Retrieval, args=arguments, prog="retrieval", description=__doc__))
