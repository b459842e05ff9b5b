"""Copies of photographs found by a frozen backbone: mean average precision on Copydays.

    uv run apps/evaluate copies BACKBONE --data DATA/copydays
    uv run apps/evaluate copies BACKBONE --data DATA/copydays --distractors DATA/yfcc-10k --whitening DATA/yfcc-20k

DATA/copydays holds original and strong, and jpegqual and crops if these are to be measured. The protocol is that of
https://github.com/facebookresearch/dino, eval_copy_detection.py, which reports strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from genviews.evaluation.context import OneBackbone, keep_results, open_on_device, prepared_for
from ssl_eval.image_files import images_in
from ssl_eval.retrieval.copydays import evaluate_copydays, read_copydays


@dataclass(frozen=True, kw_only=True)
class Copies(OneBackbone):
    """Copies and their originals."""

    data: Path
    """The folder that holds original and strong."""
    size: int = 320
    """Side of the squares that images are resized to, pixels."""
    distractors: Path | None = None
    """A folder of images among which the originals are to be found."""
    whitening: Path | None = None
    """A folder of other images, which descriptors are whitened by."""
    batch_size: int = 16


def find_copies(options: Copies) -> None:
    """Measure and append the results."""
    blocks = read_copydays(options.data)
    distractors, whitening = (
        [] if folder is None else images_in(folder) for folder in (options.distractors, options.whitening)
    )
    opened = open_on_device(options)
    found = evaluate_copydays(
        opened.network,
        blocks,
        prepared_for(opened, options, batch_size=options.batch_size),
        size=options.size,
        distractors=distractors,
        whitening=whitening,
    )
    counts = {"distractors": len(distractors), "whitening": len(whitening)}
    protocol = f"size={options.size}" + "".join(f" {what}={count}" for what, count in counts.items() if count)
    percent = {f"mAP {block}": value for block, value in found.items()}
    keep_results(options, opened, task="copies", protocol=protocol, data=options.data.resolve().name, percent=percent)


def main(arguments: Sequence[str]) -> None:
    """Read the command line and run it."""
    find_copies(tyro.cli(Copies, args=arguments, prog="copies", description=__doc__))
