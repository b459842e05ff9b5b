"""Evaluate a backbone on slides: attention over their tiles' embeddings, as on PANDA and BRIGHT."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.distributed as dist
from rich.console import Console

import sslzoo
from genviews.evaluation.context import LoadedBackbone, keep_results, open_on_device
from genviews.evaluation.datasets import CenterCrop
from genviews.evaluation.options import SlidesOptions
from genviews.evaluation.tiles import Tiles
from genviews_core.distributed import all_gather_object
from ssl_eval.distributed import raise_on_all_ranks
from ssl_eval.linear import stratified_holdout
from ssl_eval.slides.attention_mil import MIL_PROTOCOLS, MILProtocol, slide_probabilities, train_mil
from ssl_eval.slides.classification_metrics import ClassificationMetrics, classification_metrics
from ssl_eval.slides.slide_sets import SlideSet, check_all_labeled, slides_of_csv, slides_of_folders
from ssl_eval.slides.tile_embeddings import BACKBONE, CachedBags, embed_slides

LOG_EVERY = 50
"""Slides between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class SlidesContext:
    """State shared by all runs: the slides, their embeddings, and the hash of the backbone."""

    options: SlidesOptions
    protocol: MILProtocol
    train: SlideSet
    test: SlideSet
    kept: Path
    backbone: str
    device: torch.device
    shown: Console

    def bags(self, slides: SlideSet) -> CachedBags:
        """Return the embeddings of some slides."""
        return CachedBags(slides.slides, self.kept, backbone=self.backbone)


def run(options: SlidesOptions) -> None:
    """Embed the slides, train, evaluate, and append the results."""
    protocol = _protocol(options)
    train, test = _slides(options)
    opened = open_on_device(options)
    context, group = opened.context, opened.group
    backbone = sslzoo.backbone_hash(opened.network)
    job = SlidesContext(
        options=options,
        protocol=protocol,
        train=train,
        test=test,
        kept=options.embeddings / backbone[:12] / options.data.resolve().name,
        backbone=backbone,
        device=context.device,
        shown=Console(stderr=True, quiet=not context.is_main),
    )
    _embed(job, opened, group)
    with raise_on_all_ranks(group):
        mine = {run: _run(job, run) for run in range(context.rank, options.runs, context.world_size)}
    scores_of = {run: scores for part in all_gather_object(mine, group) for run, scores in part.items()}
    _report(job, opened, [scores_of[run] for run in range(options.runs)])
    sslzoo.barrier()


def _embed(job: SlidesContext, opened: LoadedBackbone, group: dist.ProcessGroup | None) -> None:
    """Embed the tiles of all slides that are not embedded yet."""
    options, size = job.options, job.options.size or opened.images["size"]
    amp = torch.bfloat16 if opened.device.type == "cuda" else None
    crop = CenterCrop(size, options.resize or size, "bilinear")
    tiles = Tiles(crop, opened.images, batch_size=options.batch_size, workers=options.workers, device=opened.device)

    def log(done: int, slides: int) -> None:
        if done % LOG_EVERY == 0 or done == slides:
            job.shown.print(f"embedded {done}/{slides}")

    embed_slides(
        opened.network,
        [*job.train.slides, *job.test.slides],
        tiles.batches,
        job.kept,
        about={BACKBONE: job.backbone, "tile": tiles.preparation, "precision": str(amp or torch.float32)},
        device=opened.device,
        amp=amp,
        group=group,
        on_slide=log,
    )


def _run(job: SlidesContext, run: int) -> ClassificationMetrics:
    """Train the attention once and test it."""
    options, resume = job.options, None
    if options.resume is not None:
        named = f"{job.backbone[:12]} slides {options.data.resolve().name} {_label(options)}"
        resume = options.resume / f"{named} seed {options.seed + run}.pt"
    model = train_mil(
        job.bags(job.train),
        job.train.labels,
        protocol=job.protocol,
        num_classes=len(job.train.classes),
        seed=options.seed + run,
        device=job.device,
        resume=resume,
        on_epoch=lambda done, epochs: job.shown.print(f"run {run + 1}/{options.runs}, epoch {done}/{epochs}"),
    )
    return classification_metrics(slide_probabilities(model, job.bags(job.test), device=job.device), job.test.labels)


def _report(job: SlidesContext, opened: LoadedBackbone, runs: list[ClassificationMetrics]) -> None:
    """Append the mean of each score to the results and print the standard deviations."""
    names = [score.name for score in fields(ClassificationMetrics) if score.name != "kappa" or job.train.graded]
    values = {name: [getattr(scores, name) for scores in runs] for name in names}
    keep_results(
        job.options,
        opened,
        task="slides",
        protocol=_label(job.options),
        data=job.options.data.resolve().name,
        percent={name: mean(each) for name, each in values.items()},
    )
    if opened.context.is_main and len(runs) > 1:
        spread = ", ".join(f"{name} {stdev(each):.2f}" for name, each in values.items())
        Console().print(f"standard deviation over {len(runs)} runs: {spread}", highlight=False)


def _protocol(options: SlidesOptions) -> MILProtocol:
    if options.protocol not in MIL_PROTOCOLS:
        raise ValueError(f"expected a protocol of {', '.join(MIL_PROTOCOLS)}, got {options.protocol}")
    if options.runs < 1 or (options.epochs is not None and options.epochs < 1):
        raise ValueError(f"expected --runs and --epochs of 1 or more, got {options.runs} and {options.epochs}")
    protocol = MIL_PROTOCOLS[options.protocol]
    return protocol if options.epochs is None else replace(protocol, epochs=options.epochs)


def _label(options: SlidesOptions) -> str:
    """Return the label of the settings that results depend on."""
    parts = [f"attention {options.protocol}"]
    parts += [f"epochs={options.epochs}"] if options.epochs is not None else []
    parts += [f"runs={options.runs}"] if options.runs > 1 else []
    parts += [f"{name}={value}" for name in ("size", "resize") if (value := getattr(options, name))]
    if options.labels is None:
        parts.append(options.level if options.level == "group" else "")
        splits = f"{options.train_split}/{options.test_split}"
        parts.append(splits if splits != "train/test" else "")
    else:
        parts.append(options.column if options.column != "isup_grade" else "")
        held = f"held-out={options.held_out:g} split={options.split_seed}"
        parts.append(options.test_labels.name if options.test_labels is not None else held)
    return " ".join(part for part in parts if part)


def _slides(options: SlidesOptions) -> tuple[SlideSet, SlideSet]:
    """Return the training and the test slides."""
    if options.labels is None:
        train = slides_of_folders(options.data, options.train_split, level=options.level)
        test = slides_of_folders(options.data, options.test_split, level=options.level, classes=train.classes)
        where = f"{options.data / options.test_split} has no slide"
    elif options.test_labels is not None:
        train = slides_of_csv(options.labels, options.data, column=options.column)
        test = slides_of_csv(options.test_labels, options.data, column=options.column, classes=train.classes)
        where = f"{options.test_labels} has no slide"
    else:
        train, test = _held_out(slides_of_csv(options.labels, options.data, column=options.column), options)
        where = f"none of {len(test.slides)} held-out slides is"
    if options.labels is not None and not options.ignore_unlabeled:
        check_all_labeled(options.data, train, test)
    if both := {slide.name for slide in train.slides} & {slide.name for slide in test.slides}:
        raise ValueError(
            f"expected disjoint training and test slides, got {min(both)} in both; remove it from one of the CSVs"
        )
    if absent := set(range(len(train.classes))) - set(test.labels.tolist()):
        raise ValueError(f"{where} of class {train.classes[min(absent)]}; every class needs test slides")
    return train, test


def _held_out(every: SlideSet, options: SlidesOptions) -> tuple[SlideSet, SlideSet]:
    """Hold out a fraction of every class and origin."""
    kinds = [(slide.label, slide.origin) for slide in every.slides]
    stratum = {kind: number for number, kind in enumerate(sorted(set(kinds)))}
    strata = torch.tensor([stratum[kind] for kind in kinds])
    kept, held = stratified_holdout(strata, options.held_out, options.split_seed)
    return every.take(kept), every.take(held)
