"""Measure what a backbone is worth on slides: attention over their tiles' embeddings, as on PANDA and BRIGHT."""

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

TOLD_EVERY = 50
"""SlidesOptions between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class SlidesContext:
    """What every run shares: the slides, their bags, and the hash of the backbone that made them."""

    options: SlidesOptions
    protocol: MILProtocol
    train: SlideSet
    test: SlideSet
    kept: Path
    backbone: str
    device: torch.device
    shown: Console

    def bags(self, slides: SlideSet) -> CachedBags:
        """The embeddings of some slides."""
        return CachedBags(slides.slides, self.kept, backbone=self.backbone)


def run(options: SlidesOptions) -> None:
    """Embed, train, measure, append the results."""
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
    found = {run: scores for part in all_gather_object(mine, group) for run, scores in part.items()}
    _tell(job, opened, [found[run] for run in range(options.runs)])
    sslzoo.barrier()


def _embed(job: SlidesContext, opened: LoadedBackbone, group: dist.ProcessGroup | None) -> None:
    """The tiles of all slides that are not embedded yet."""
    options, size = job.options, job.options.size or opened.images["size"]
    amp = torch.bfloat16 if opened.device.type == "cuda" else None
    centre = CenterCrop(size, options.resize or size, "bilinear")
    tiles = Tiles(centre, opened.images, batch_size=options.batch_size, workers=options.workers, device=opened.device)

    def tell(done: int, slides: int) -> None:
        if done % TOLD_EVERY == 0 or done == slides:
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
        on_slide=tell,
    )


def _run(job: SlidesContext, run: int) -> ClassificationMetrics:
    """One training of the attention, and its test."""
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


def _tell(job: SlidesContext, opened: LoadedBackbone, runs: list[ClassificationMetrics]) -> None:
    """Keep the mean of each score, and show their spread."""
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
        raise ValueError(f"unknown protocol {options.protocol}: choose one of {', '.join(MIL_PROTOCOLS)}")
    if options.runs < 1 or (options.epochs is not None and options.epochs < 1):
        raise ValueError(f"--runs {options.runs}, --epochs {options.epochs}: both are at least 1")
    protocol = MIL_PROTOCOLS[options.protocol]
    return protocol if options.epochs is None else replace(protocol, epochs=options.epochs)


def _label(options: SlidesOptions) -> str:
    """All that makes two results comparable."""
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
    """Those to train on, and those to test on."""
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
    if options.labels is not None and not options.ignore_unlabelled:
        check_all_labeled(options.data, train, test)
    if both := {slide.name for slide in train.slides} & {slide.name for slide in test.slides}:
        raise ValueError(f"slide {min(both)} is to be trained on and tested on: take it out of one of the CSVs")
    if absent := set(range(len(train.classes))) - set(test.labels.tolist()):
        raise ValueError(f"{where} of class {train.classes[min(absent)]}: every class needs some to be tested on")
    return train, test


def _held_out(every: SlideSet, options: SlidesOptions) -> tuple[SlideSet, SlideSet]:
    """A share of every class and origin."""
    kinds = [(slide.label, slide.origin) for slide in every.slides]
    place = {kind: number for number, kind in enumerate(sorted(set(kinds)))}
    strata = torch.tensor([place[kind] for kind in kinds])
    kept, held = stratified_holdout(strata, options.held_out, options.split_seed)
    return every.take(kept), every.take(held)
