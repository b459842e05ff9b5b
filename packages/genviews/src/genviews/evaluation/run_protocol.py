"""Run one evaluation protocol on one backbone: from folders of images to accuracies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import ssl_eval
import sslzoo
from genviews.evaluation.datasets import CenterCropDataset, LoaderConfig, TrainingImages
from genviews_core.distributed import default_group
from genviews_core.progress import Progress
from pairdata import ImageIndex
from ssl_eval import FineTuneProtocol, KNNProtocol, LinearProtocol, ProtocolOverride, TransformConfig
from ssl_eval.item_loader import OnUnreadable, raise_error
from ssl_eval.linear import LinearResult, stratified_holdout
from sslzoo import DistContext

EXTRACTION = 256
"""Batch size of feature extraction."""


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """Inputs and options of a protocol.

    Attributes:
        backbone: on the device.
        train: labeled training images.
        test: labeled test images.
        preparation: transforms of both, at the backbone's input size.
        reading: options of both data loaders.
        context: this process.
        seed: seed of all random numbers.
        learning_rates: searched by a linear protocol; empty for the protocol's own.
        k: number of neighbors; None for the protocol's.
        resume: folder of resume files.
        bf16: run the network in bfloat16.
        on_epoch: called with the number of finished epochs and of all epochs.
        on_unreadable: called with an error message for each unreadable image for which features are extracted.
        log: called with each line of progress.
    """

    backbone: nn.Module
    train: ImageIndex
    test: ImageIndex
    preparation: TransformConfig
    reading: LoaderConfig
    context: DistContext
    seed: int
    learning_rates: tuple[float, ...] = ()
    k: int | None = None
    resume: Path | None = None
    bf16: bool = False
    on_epoch: Callable[[int, int], object] = lambda done, epochs: None
    on_unreadable: OnUnreadable = raise_error
    log: Callable[[str], object] = lambda line: None

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The processes that share the work."""
        return default_group()

    @property
    def amp(self) -> torch.dtype | None:
        """Autocast dtype; None for float32, as in published results."""
        return torch.bfloat16 if self.bf16 else None

    def eval_images(self, index: ImageIndex) -> CenterCropDataset:
        """Return center crops of the images."""
        return CenterCropDataset(
            index,
            self.preparation,
            self.reading,
            batch_size=EXTRACTION,
            context=self.context,
            on_unreadable=self.on_unreadable,
        )

    def train_images(self, index: ImageIndex, batch_size: int) -> TrainingImages:
        """Return augmented images for training."""
        return TrainingImages(
            index, self.preparation, self.reading, batch_size=batch_size, seed=self.seed, context=self.context
        )

    def features(self, index: ImageIndex, network: nn.Module) -> ssl_eval.Features:
        """Extract one feature vector per image."""
        count = -(-len(index) // self.context.world_size)
        with Progress(shown=self.context.is_main, stderr=True) as progress:
            images = _counted(self.eval_images(index), count, progress.add_task("features"))
            return ssl_eval.extract_features(
                network, images, device=self.context.device, amp=self.amp, group=self.group
            )

    @property
    def rates_label(self) -> str:
        """Suffix of the label of results whose learning rates are not the protocol's."""
        return " rates=" + ",".join(f"{rate:g}" for rate in self.learning_rates) if self.learning_rates else ""

    def digest(self) -> str:
        """Hash the training images, their labels and the transforms."""
        digest = hashlib.blake2b(repr((self.preparation, self.train.classes, self.bf16)).encode(), digest_size=6)
        for row, label in enumerate(self.train.labels.tolist()):
            digest.update(f"{self.train.key(row)} {label}\n".encode())
        return digest.hexdigest()

    def common(self) -> dict:
        """Return the arguments that all trainings have in common."""
        return {
            "num_classes": len(self.train.classes),
            "seed": self.seed,
            "device": self.context.device,
            "amp": self.amp,
            "group": self.group,
            "on_epoch": self.on_epoch,
        }


def _counted(
    batches: Iterable[Sequence[Tensor]], count: int, update: Callable[[int, int], None]
) -> Iterator[Sequence[Tensor]]:
    """Yield the batches and report the number of images so far."""
    done = 0
    for batch in batches:
        yield batch
        done = min(done + len(batch[0]), count)
        update(done, count)


Measurements = list[tuple[str, str, str, float]]
"""Task, suffix of the protocol's label, metric, percent."""


def measure(variant: ProtocolOverride, job: EvalContext) -> Measurements:
    """Run the protocol and return its metrics.

    Raises:
        ValueError: see ssl_eval.
    """
    protocol = variant.protocol
    if isinstance(protocol, KNNProtocol):
        return _knn(protocol, job)
    if isinstance(protocol, FineTuneProtocol):
        return _finetune(protocol, job, variant)
    return _linear_cached(protocol, job) if variant.cached else _linear(protocol, job, variant)


def _knn(protocol: KNNProtocol, job: EvalContext) -> Measurements:
    train, test = (job.features(index, job.backbone) for index in (job.train, job.test))
    counts = (job.k,) if job.k else protocol.k
    accuracy = ssl_eval.knn_accuracy(
        train, test, k=counts, temperature=protocol.temperature, device=job.context.device, group=job.group
    )
    return [("knn", f" k={k}", "top1", accuracy[k]) for k in counts]


def _linear_cached(protocol: LinearProtocol, job: EvalContext) -> Measurements:
    network = ssl_eval.features_of(job.backbone, protocol.class_tokens)
    train, test = (job.features(index, network) for index in (job.train, job.test))
    result = ssl_eval.linear_probe(
        train,
        test,
        learning_rates=_rates(protocol, job),
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        weight_decay=protocol.weight_decay,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        larc=protocol.larc,
        schedule=protocol.schedule,
        seed=job.seed,
        num_classes=len(job.train.classes),
        device=job.context.device,
        group=job.group,
    )
    return _linear_metrics(result, job)


def _linear(protocol: LinearProtocol, job: EvalContext, variant: ProtocolOverride) -> Measurements:
    """Choose among several learning rates on a held-out tenth of every training class."""
    rates, index, held_out = _rates(protocol, job), job.train, None
    if len(rates) > 1:
        kept, held = stratified_holdout(torch.from_numpy(index.labels), 0.1, job.seed)
        index, held_out = index.take(kept.numpy()), job.eval_images(index.take(held.numpy()))
    train, test = job.train_images(index, protocol.batch_size), job.eval_images(job.test)
    result = ssl_eval.linear_evaluation(
        job.backbone, train, test, protocol=protocol, learning_rates=rates, held_out=held_out,
        resume=_resume(job, variant, job.rates_label), **job.common(),
    )  # fmt: skip
    return _linear_metrics(result, job)


def _linear_metrics(result: LinearResult, job: EvalContext) -> Measurements:
    if result.holdout_accuracies:
        job.log(f"learning rate {result.learning_rate:g} is the best on held-out training images")
    return [("linear", job.rates_label, "top1", result.accuracy), ("linear", job.rates_label, "top5", result.top5)]


def _finetune(protocol: FineTuneProtocol, job: EvalContext, variant: ProtocolOverride) -> Measurements:
    backbone = job.backbone
    if job.context.world_size > 1:
        backbone = sslzoo.convert_sync_batchnorm(backbone)
    train, test = job.train_images(job.train, protocol.batch_size), job.eval_images(job.test)
    scores = ssl_eval.finetune(backbone, train, test, protocol=protocol, resume=_resume(job, variant), **job.common())
    return [("semi-supervised", "", "top1", scores.top1), ("semi-supervised", "", "top5", scores.top5)]


def _rates(protocol: LinearProtocol, job: EvalContext) -> tuple[float, ...]:
    return job.learning_rates or protocol.searched or (protocol.learning_rate,)


def _resume(job: EvalContext, variant: ProtocolOverride, suffix: str = "") -> Path | None:
    """Return the resume file of this backbone, protocol and set of images."""
    if job.resume is None:
        return None
    backbone = ssl_eval.backbone_hash(job.backbone)[:12]
    name = f"{backbone} {variant.label}{suffix} data {job.digest()} seed {job.seed}.pt"
    return job.resume / name.replace("/", "_")


def labeled_rows(index: ImageIndex, protocol: ssl_eval.Protocol, listed: Path | None, seed: int) -> Tensor | None:
    """Return the rows of the labeled subset of the training images; None for all."""
    if listed is not None:
        return ssl_eval.listed_subset(listed, [index.key(row) for row in range(len(index))])
    if isinstance(protocol, FineTuneProtocol):
        labels = torch.from_numpy(index.labels)
        return ssl_eval.balanced_subset(labels, protocol.percent, seed=seed, num_classes=len(index.classes))
    return None


def at_size(preparation: TransformConfig, size: int, resize: int | None) -> TransformConfig:
    """Return the transforms for another input size; the short side scales with it, or equals it below 64 px."""
    if resize is None:
        resize = round(size * preparation.resize / preparation.size) if size >= 64 else size
    return replace(preparation, size=size, resize=resize)
