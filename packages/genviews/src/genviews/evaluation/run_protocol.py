"""One protocol on one backbone: from folders of images to accuracies."""

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
from ssl_eval.image_files import OnUnreadable, raise_error
from ssl_eval.linear import LinearResult, stratified_holdout
from sslzoo import DistContext

EXTRACTION = 256
"""Images a batch where nothing is trained."""


@dataclass(frozen=True, kw_only=True)
class EvalContext:
    """What a protocol needs beside itself.

    Attributes:
        backbone: on the device.
        train: the training images that count, labelled.
        test: the test images, labelled.
        preparation: of both, at the backbone's size.
        reading: of both.
        context: this process.
        seed: of everything drawn.
        learning_rates: tried together by a linear protocol; the protocol's own where empty.
        k: neighbours, instead of the protocol's.
        resume: a folder for files to go on from.
        bf16: whether the network computes in bfloat16.
        on_epoch: called with how many epochs are done, and of how many.
        on_unreadable: called with an error message for each unreadable image for which features are extracted.
        tell: called with a line about what was found on the way.
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
    tell: Callable[[str], object] = lambda line: None

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The processes that share the work."""
        return default_group()

    @property
    def amp(self) -> torch.dtype | None:
        """What it is told to compute in; None is float32, as published figures are."""
        return torch.bfloat16 if self.bf16 else None

    def centred(self, index: ImageIndex) -> CenterCropDataset:
        """Images as a test sees them."""
        return CenterCropDataset(
            index,
            self.preparation,
            self.reading,
            batch_size=EXTRACTION,
            context=self.context,
            on_unreadable=self.on_unreadable,
        )

    def augmented(self, index: ImageIndex, batch_size: int) -> TrainingImages:
        """Images as a training sees them."""
        return TrainingImages(
            index, self.preparation, self.reading, batch_size=batch_size, seed=self.seed, context=self.context
        )

    def features(self, index: ImageIndex, network: nn.Module) -> ssl_eval.Features:
        """One vector an image."""
        count = -(-len(index) // self.context.world_size)
        with Progress(shown=self.context.is_main, stderr=True) as progress:
            images = _counted(self.centred(index), count, progress.add_task("features"))
            return ssl_eval.extract_features(
                network, images, device=self.context.device, amp=self.amp, group=self.group
            )

    @property
    def tried(self) -> str:
        """What results add to a linear protocol whose learning rates are not its own."""
        return " rates=" + ",".join(f"{rate:g}" for rate in self.learning_rates) if self.learning_rates else ""

    def digest(self) -> str:
        """Of which images are learned from, under which labels, and how they are prepared."""
        found = hashlib.blake2b(repr((self.preparation, self.train.classes, self.bf16)).encode(), digest_size=6)
        for row, label in enumerate(self.train.labels.tolist()):
            found.update(f"{self.train.key(row)} {label}\n".encode())
        return found.hexdigest()

    def common(self) -> dict:
        """Arguments of every training."""
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
    """Pass batches on, and report how many images they had."""
    done = 0
    for batch in batches:
        yield batch
        done = min(done + len(batch[0]), count)
        update(done, count)


Found = list[tuple[str, str, str, float]]
"""Task, what the label of the protocol is followed by, metric, percent."""


def measure(variant: ProtocolOverride, job: EvalContext) -> Found:
    """What the protocol finds.

    Raises:
        ValueError: see ssl_eval.
    """
    protocol = variant.protocol
    if isinstance(protocol, KNNProtocol):
        return _knn(protocol, job)
    if isinstance(protocol, FineTuneProtocol):
        return _finetune(protocol, job, variant)
    return _linear_cached(protocol, job) if variant.cached else _linear(protocol, job, variant)


def _knn(protocol: KNNProtocol, job: EvalContext) -> Found:
    train, test = (job.features(index, job.backbone) for index in (job.train, job.test))
    counts = (job.k,) if job.k else protocol.k
    found = ssl_eval.knn_accuracy(
        train, test, k=counts, temperature=protocol.temperature, device=job.context.device, group=job.group
    )
    return [("knn", f" k={k}", "top1", found[k]) for k in counts]


def _linear_cached(protocol: LinearProtocol, job: EvalContext) -> Found:
    network = ssl_eval.features_of(job.backbone, protocol.class_tokens)
    train, test = (job.features(index, network) for index in (job.train, job.test))
    found = ssl_eval.linear_probe(
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
    return _told(found, job)


def _linear(protocol: LinearProtocol, job: EvalContext, variant: ProtocolOverride) -> Found:
    """Several rates are chosen among on a tenth of every training class, which is then not trained on."""
    rates, index, held_out = _rates(protocol, job), job.train, None
    if len(rates) > 1:
        kept, held = stratified_holdout(torch.from_numpy(index.labels), 0.1, job.seed)
        index, held_out = index.take(kept.numpy()), job.centred(index.take(held.numpy()))
    train, test = job.augmented(index, protocol.batch_size), job.centred(job.test)
    found = ssl_eval.linear_evaluation(
        job.backbone, train, test, protocol=protocol, learning_rates=rates, held_out=held_out,
        resume=_resume(job, variant, job.tried), **job.common(),
    )  # fmt: skip
    return _told(found, job)


def _told(found: LinearResult, job: EvalContext) -> Found:
    if found.holdout_accuracies:
        job.tell(f"learning rate {found.learning_rate:g} is the best on held-out training images")
    return [("linear", job.tried, "top1", found.accuracy), ("linear", job.tried, "top5", found.top5)]


def _finetune(protocol: FineTuneProtocol, job: EvalContext, variant: ProtocolOverride) -> Found:
    backbone = job.backbone
    if job.context.world_size > 1:
        backbone = sslzoo.convert_sync_batchnorm(backbone)
    train, test = job.augmented(job.train, protocol.batch_size), job.centred(job.test)
    found = ssl_eval.finetune(backbone, train, test, protocol=protocol, resume=_resume(job, variant), **job.common())
    return [("semi-supervised", "", "top1", found.top1), ("semi-supervised", "", "top5", found.top5)]


def _rates(protocol: LinearProtocol, job: EvalContext) -> tuple[float, ...]:
    return job.learning_rates or protocol.searched or (protocol.learning_rate,)


def _resume(job: EvalContext, variant: ProtocolOverride, further: str = "") -> Path | None:
    """A file of its own for each backbone, protocol and set of images."""
    if job.resume is None:
        return None
    backbone = ssl_eval.backbone_hash(job.backbone)[:12]
    name = f"{backbone} {variant.label}{further} data {job.digest()} seed {job.seed}.pt"
    return job.resume / name.replace("/", "_")


def labelled_rows(index: ImageIndex, protocol: ssl_eval.Protocol, listed: Path | None, seed: int) -> Tensor | None:
    """The rows of the training images that keep their labels; None for all."""
    if listed is not None:
        return ssl_eval.listed_subset(listed, [index.key(row) for row in range(len(index))])
    if isinstance(protocol, FineTuneProtocol):
        labels = torch.from_numpy(index.labels)
        return ssl_eval.balanced_subset(labels, protocol.percent, seed=seed, num_classes=len(index.classes))
    return None


def at_size(preparation: TransformConfig, size: int, resize: int | None) -> TransformConfig:
    """The preparation for inputs of another side: the short side grows with it, or is it below 64 px."""
    if resize is None:
        resize = round(size * preparation.resize / preparation.size) if size >= 64 else size
    return replace(preparation, size=size, resize=resize)
