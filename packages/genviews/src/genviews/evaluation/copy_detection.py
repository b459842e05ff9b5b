"""Evaluate copy detection by a frozen backbone: mean average precision on Copydays."""

from __future__ import annotations

from genviews.evaluation.context import keep_results, open_on_device, prepared_for
from genviews.evaluation.options import CopyDetectionOptions
from ssl_eval.image_files import images_in
from ssl_eval.retrieval.copydays import evaluate_copydays, read_copydays


def run(options: CopyDetectionOptions) -> None:
    """Evaluate and append the results."""
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
