"""Evaluate landmark retrieval by a frozen backbone: mean average precision on revisited Oxford and Paris."""

from __future__ import annotations

from genviews.evaluation.context import keep_results, open_on_device, prepared_for
from genviews.evaluation.options import RetrievalOptions
from ssl_eval.retrieval.revisited import SCALES, evaluate_revisited, read_distractors, read_revisited


def run(options: RetrievalOptions) -> None:
    """Evaluate and append the results."""
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
