"""Evaluate a backbone on classification, frozen or fine-tuned with few labels."""

from __future__ import annotations

import math
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
from genviews.evaluation.run_protocol import EvalContext, at_size, labeled_rows, measure
from genviews.processes import join_processes
from genviews_core.channels import ranges_of
from pairdata import ImageIndex, index_images
from ssl_eval import ProtocolOverride, TransformConfig
from ssl_eval.features import evaluating
from ssl_eval.image_files import SkippedFiles
from ssl_eval.item_loader import raise_error


def run(options: ClassificationOptions) -> None:
    """Evaluate, append the results, and print the table."""
    context = join_processes(options.device, timeout=DIST_TIMEOUT)
    ssl_eval.check_results(options.results)
    for name in ("size", "resize", "k"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(f"expected --{name} of 1 or more, got {given}; leave it out for the default")
    if odd := [rate for rate in options.learning_rates if not 0 < rate < math.inf]:
        raise ValueError(f"expected finite --learning-rates above 0, got {odd[0]:g}; remove it")
    variant = _variant(options)
    protocol = None if variant is None else variant.protocol
    backbone, expected = sslzoo.resolve_backbone(options.backbone, channels=options.channels)
    value_range = options.value_range or expected.get("value_range")
    ranges_of(value_range, len(expected["mean"]))
    train, test = _open(options.train), _open(options.test)
    if odd := sorted(set(train.classes) ^ set(test.classes)):
        lacking = options.test if odd[0] in train.classes else options.train
        raise ValueError(
            f"expected the same class folders in --train and --test, got none of class {odd[0]} in {lacking}; add it"
        )
    if protocol is not None and (rows := labeled_rows(train, protocol, options.label_list, options.seed)) is not None:
        train = train.take(rows.numpy())
        if missing := sorted(set(range(len(train.classes))) - set(train.labels.tolist())):
            raise ValueError(
                f"expected labeled images of every class, got none of class {train.classes[missing[0]]}; add some to "
                f"{options.label_list or '--train'}"
            )
    preparation = TransformConfig() if protocol is None else protocol.preparation
    shown = Console(stderr=True, quiet=not context.is_main)
    job = EvalContext(
        backbone=backbone.to(context.device),
        train=train,
        test=test,
        preparation=at_size(preparation, options.size or expected["size"], options.resize),
        reading=LoaderConfig(
            mean=expected["mean"], std=expected["std"], workers=options.workers, value_range=value_range
        ),
        context=context,
        seed=options.seed,
        learning_rates=options.learning_rates,
        k=options.k,
        resume=options.resume,
        bf16=options.bf16,
        on_unreadable=raise_error if options.strict else SkippedFiles(log_left_out),
        log=shown.print,
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
    """Return the protocol with the options that override it; None without a protocol."""
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
            raise ValueError(f"expected --protocol with --{given[0].replace('_', '-')}, got none; give its name")
        return None
    known = ssl_eval.find_protocol(options.protocol)
    if options.learning_rates and not isinstance(known, ssl_eval.LinearProtocol):
        raise ValueError(
            f"expected a linear protocol with --learning-rates, got {options.protocol}; leave --learning-rates out"
        )
    if options.k and not isinstance(known, ssl_eval.KNNProtocol):
        raise ValueError(f"expected a kNN protocol with --k, got {options.protocol}; leave --k out")
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
    """Check that the network accepts images of this size.

    Raises:
        ValueError: it does not.
    """
    size = job.preparation.size
    try:
        with torch.no_grad(), evaluating(job.backbone):
            job.backbone(torch.zeros(2, len(job.reading.mean), size, size, device=job.context.device))
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected a backbone that takes images of {size} x {size} px, got {options.backbone} ({reason}); "
            "give --size"
        ) from None


def _open(root: Path) -> ImageIndex:
    index = index_images(root)
    if (index.labels < 0).any():
        raise ValueError(f"expected images as {root}/CLASS/IMAGE, got some outside class folders; move or remove them")
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
    """Return the options that change results and are not part of the variant's label."""
    given = {"size": options.size, "resize": options.resize}
    scaled = "" if options.value_range is None else " value_range={:g},{:g}".format(*options.value_range)
    return "".join(f" {name}={value}" for name, value in given.items() if value) + scaled + " bf16" * options.bf16


def _show(path: Path) -> None:
    Console().print(replace(ssl_eval.tabulate(ssl_eval.read_results(path)), title="accuracy in percent"))
