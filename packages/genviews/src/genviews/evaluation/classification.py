"""Measure how a backbone classifies, frozen or with few labels."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

import ssl_eval
import sslzoo
from genviews.evaluation.context import DIST_TIMEOUT, caption_of, count_left_out, log_left_out
from genviews.evaluation.datasets import LoaderConfig
from genviews.evaluation.options import ClassificationOptions
from genviews.evaluation.run_protocol import EvalContext, at_size, labelled_rows, measure
from pairdata import ImageIndex, index_images
from ssl_eval import ProtocolOverride, TransformConfig
from ssl_eval.features import evaluating
from ssl_eval.image_files import SkippedFiles, raise_error


def run(options: ClassificationOptions) -> None:
    """Measure, append the results, show the table."""
    context = sslzoo.init_distributed(os.environ, options.device, timeout=DIST_TIMEOUT)
    ssl_eval.check_results(options.results)
    for name in ("size", "resize", "k"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(f"--{name} {given}: give 1 or more")
    if odd := [rate for rate in options.learning_rates if not 0 < rate < math.inf]:
        raise ValueError(f"--learning-rates {odd[0]:g}: give finite numbers above 0")
    variant = _variant(options)
    protocol = None if variant is None else variant.protocol
    backbone, expected = sslzoo.resolve_backbone(options.backbone)
    train, test = _open(options.train), _open(options.test)
    if odd := sorted(set(train.classes) ^ set(test.classes)):
        lacking = options.test if odd[0] in train.classes else options.train
        raise ValueError(f"{lacking} has no image of the class {odd[0]}: both folders need the same class folders")
    if protocol is not None and (rows := labelled_rows(train, protocol, options.label_list, options.seed)) is not None:
        train = train.take(rows.numpy())
        if missing := sorted(set(range(len(train.classes))) - set(train.labels.tolist())):
            raise ValueError(f"{options.label_list} names no image of the class {train.classes[missing[0]]}")
    preparation = TransformConfig() if protocol is None else protocol.preparation
    shown = Console(stderr=True, quiet=not context.is_main)
    job = EvalContext(
        backbone=backbone.to(context.device),
        train=train,
        test=test,
        preparation=at_size(preparation, options.size or expected["size"], options.resize),
        reading=LoaderConfig(
            mean=expected["mean"], std=expected["std"], workers=options.workers, value_range=options.value_range
        ),
        context=context,
        seed=options.seed,
        learning_rates=options.learning_rates,
        k=options.k,
        resume=options.resume,
        bf16=options.bf16,
        on_unreadable=raise_error if options.strict else SkippedFiles(log_left_out),
        tell=shown.print,
        on_epoch=lambda done, epochs: shown.print(f"epoch {done}/{epochs}"),
    )
    _check_size(options, job)
    results = _results(options, variant, job)
    left_out = count_left_out(job.on_unreadable, job.group)
    results = [replace(result, left_out=left_out) for result in results]
    if context.is_main:
        ssl_eval.append_results(options.results, results)
    sslzoo.barrier()
    if context.is_main:
        _show(options.results)
        Console(stderr=True).print(caption_of(left_out), end="\n" if left_out else "", highlight=False)


def _variant(options: ClassificationOptions) -> ProtocolOverride | None:
    """The protocol and what is changed of it; None without a protocol."""
    if options.protocol is None:
        changed = (
            "epochs",
            "batch_size",
            "learning_rates",
            "percent",
            "head_lr",
            "backbone_lr",
            "cached",
            "label_list",
        )
        if given := [name for name in changed if getattr(options, name)]:
            raise ValueError(f"--{given[0].replace('_', '-')} changes a protocol: name one with --protocol")
        return None
    known = ssl_eval.find_protocol(options.protocol)
    if options.learning_rates and not isinstance(known, ssl_eval.LinearProtocol):
        raise ValueError(f"{options.protocol} is no linear protocol: leave --learning-rates out")
    if options.k and not isinstance(known, ssl_eval.KNNProtocol):
        raise ValueError(f"{options.protocol} has no neighbours: leave --k out")
    labels = None
    if options.label_list is not None:
        labels = f"list {options.label_list.name}"
    elif isinstance(known, ssl_eval.FineTuneProtocol):
        labels = "balanced"
    return ProtocolOverride(
        name=options.protocol,
        epochs=options.epochs,
        batch_size=options.batch_size,
        cached=options.cached,
        labels=labels,
        percent=options.percent,
        head_lr=options.head_lr,
        backbone_lr=options.backbone_lr,
    )


def _check_size(options: ClassificationOptions, job: EvalContext) -> None:
    """Some networks take images of one size alone.

    Raises:
        ValueError: the backbone does not take such images.
    """
    size = job.preparation.size
    try:
        with torch.no_grad(), evaluating(job.backbone):
            job.backbone(torch.zeros(2, 3, size, size, device=job.context.device))
    except (AssertionError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{options.backbone} takes no images of {size} x {size} pixels ({told}): give --size"
        ) from None


def _open(root: Path) -> ImageIndex:
    index = index_images(root)
    if (index.labels < 0).any():
        raise ValueError(f"{root} holds images outside class folders: an evaluation reads ROOT/<class>/<image>")
    return index


def _results(
    options: ClassificationOptions, variant: ProtocolOverride | None, job: EvalContext
) -> list[ssl_eval.Result]:
    same = {
        "backbone": sslzoo.backbone_hash(job.backbone),
        "data": ssl_eval.data_name(options.test),
        "recipe": options.name or str(options.backbone),
        "seed": options.seed,
    }
    if variant is None:
        train, test = (job.features(index, job.backbone) for index in (job.train, job.test))
        found = ssl_eval.evaluate_frozen(train, test, k=options.k, device=job.context.device, group=job.group, **same)
        return [replace(result, protocol=result.protocol + _changes(options)) for result in found]
    started = time.perf_counter()
    found = measure(variant, job)
    same |= {"machine": ssl_eval.machine(), "seconds": time.perf_counter() - started}
    return [
        ssl_eval.Result(
            task=task, metric=metric, value=value, protocol=variant.label + further + _changes(options), **same
        )
        for task, further, metric, value in found
    ]


def _changes(options: ClassificationOptions) -> str:
    """What makes a figure another one than the protocol's, beside what the variant tells."""
    given = {"size": options.size, "resize": options.resize}
    scaled = "" if options.value_range is None else " value_range={:g},{:g}".format(*options.value_range)
    return "".join(f" {name}={value}" for name, value in given.items() if value) + scaled + " bf16" * options.bf16


def _show(path: Path) -> None:
    Console().print(replace(ssl_eval.tabulate(ssl_eval.read_results(path)), title="accuracy in percent"))
