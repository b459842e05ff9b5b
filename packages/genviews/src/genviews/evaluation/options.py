"""Options of the evaluation tasks. Nothing here imports torch, so that --help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

RUN = ("name", "results", "seed", "workers", "device", "strict")
"""Options of every task, last in its help."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of every task: the backbone and the file of results."""

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {"run": RUN}

    backbone: Annotated[Path, tyro.conf.Positional]
    """Backbone folder written by `genviews pretrain`, or a checkpoint file of an official repository."""
    name: str | None = None
    """Name of the row in tables; default: path of the backbone."""
    results: Path = Path("results.jsonl")
    """File to which one JSON line per result is appended."""
    seed: int = 0
    """Seed of the training of the backbone, for tables."""
    workers: int = 0
    """Processes that decode images."""
    device: str = "auto"
    strict: bool = False
    """Stop at an unreadable test image instead of skipping it and recording the count in the result."""


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
    """Evaluate a backbone on classification, frozen or fine-tuned with few labels.

        genviews evaluate runs/cifar10-dino/backbone --train DATA/train --test DATA/test
        genviews evaluate BACKBONE --protocol genview-linear --train IMAGENET/train --test IMAGENET/val
        genviews evaluate BACKBONE --protocol vicreg-semi-1 --label-list 1percent.txt --train ... --test ...
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate BACKBONE --protocol ... --train ... --test ...

    Protocols, with their sources: ssl_eval/published.py. Without one: DINO's kNN, and a linear probe of stored features
    whose learning rate is selected on held-out training images.
    """

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "protocol": (
            *("epochs", "batch_size", "learning_rates", "percent", "head_lr", "backbone_lr", "cached", "label_list"),
            "resume",
        ),
        "images": ("resize", "channels", "value_range"),
        "run": RUN,
    }

    backbone: Annotated[Path, tyro.conf.Positional]
    """A backbone folder, a checkpoint of an official repository, or timm/NAME."""
    train: Path
    test: Path
    protocol: str | None = None
    """Name of a published protocol; default: kNN and a linear probe."""
    epochs: int | None = None
    """Default: that of the protocol."""
    batch_size: int | None = None
    """Batch size over all processes, with scaled learning rates; default: that of the protocol."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates of a linear protocol, trained in one pass; a tenth of the training images selects the best."""
    percent: int | None = None
    """Percentage of labels; default: that of the semi-supervised protocol."""
    head_lr: float | None = None
    """Learning rate of the classifier; default: that of the semi-supervised protocol."""
    backbone_lr: float | None = None
    """Learning rate of the backbone; default: that of the semi-supervised protocol."""
    cached: bool = False
    """Extract the features of a linear protocol once instead of augmenting the images in every epoch."""
    label_list: Path | None = None
    """Text file with the names of the labeled images; default: drawn with the seed by semi-supervised protocols."""
    name: str | None = None
    """Name of the row in tables; default: path of the backbone."""
    results: Path = Path("results.jsonl")
    """File to which one JSON line per result is appended; the table shows all of them."""
    resume: Path | None = Path("runs/evaluate")
    """Folder of the resume files of interrupted trainings; None: no resume files."""
    size: int | None = None
    """Image size in pixels; default: that of the training of the backbone."""
    resize: int | None = None
    """Short side before the center crop; default: size * 256 / 224 for 64 px and above, otherwise size."""
    k: int | None = None
    """Number of neighbors; default: that of the protocol, otherwise 20, at most the number of training images."""
    value_range: tuple[float, float] | None = None
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; use that of the training. For
    other than three channels the default is that recorded in the backbone."""
    channels: int | None = None
    """Channels of the images; default: those of the backbone. The first layer of timm's networks is adapted."""
    bf16: bool = False
    """Compute in bfloat16; published results use float32."""
    seed: int = 0
    """Seed of the training of the backbone, for tables, and of random draws here."""
    workers: int = 0
    device: str = "auto"
    strict: bool = False
    """Stop at an unreadable test image instead of skipping it and recording the count in the result."""


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions(EvalOptions):
    r"""Evaluate landmark retrieval by a frozen backbone: mean average precision on revisited Oxford and Paris.

        genviews evaluate retrieval BACKBONE --data DATA/roxford5k
        genviews evaluate retrieval BACKBONE --data DATA/rparis6k --size 512 --multi-scale
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate retrieval BACKBONE --data DATA/roxford5k \
            --distractors DATA/revisitop1m

    DATA/roxford5k has gnd_roxford5k.pkl and jpg/, as written by https://github.com/filipradenovic/revisitop. The first
    two commands follow eval_image_retrieval.py of https://github.com/facebookresearch/dino.
    """

    data: Path
    """Folder with gnd_NAME.pkl and jpg/."""
    size: int = 224
    """Maximum long side of the images in pixels; larger images are downscaled."""
    multi_scale: bool = False
    """Average the descriptors of every image at three scales."""
    crop_queries: bool = False
    """Crop queries to their boxes, as the revisited protocol does and DINO's script does not."""
    distractors: Path | None = None
    """Folder of images added to the database, such as revisitop1m with its list."""


@dataclass(frozen=True, kw_only=True)
class CopyDetectionOptions(EvalOptions):
    """Evaluate copy detection by a frozen backbone: mean average precision on Copydays.

        genviews evaluate copy-detection BACKBONE --data DATA/copydays
        genviews evaluate copy-detection BACKBONE --data DATA/copydays --distractors YFCC-10K --whitening YFCC-20K

    DATA/copydays has original/ and strong/, and optionally jpegqual/ and crops/. The protocol is that of
    eval_copy_detection.py of https://github.com/facebookresearch/dino, which reports strong.
    """

    data: Path
    """Folder with original/ and strong/."""
    size: int = 320
    """Size in pixels of the squares to which images are resized."""
    distractors: Path | None = None
    """Folder of images added to the database."""
    whitening: Path | None = None
    """Folder of images from which the whitening of the descriptors is computed."""
    batch_size: int = 16


@dataclass(frozen=True, kw_only=True)
class VideoOptions(EvalOptions):
    """Evaluate video object segmentation by label propagation with frozen features: J and F on DAVIS 2017.

        genviews evaluate video BACKBONE --data DATA/DAVIS
        genviews evaluate video BACKBONE --data DATA/DAVIS --masks found    # for the official evaluation

    DATA/DAVIS has ImageSets/, JPEGImages/ and Annotations/. Labels are propagated as in
    https://github.com/facebookresearch/dino, eval_video_segmentation.py, and scored as in
    https://github.com/davisvideochallenge/davis2017-evaluation.
    """

    data: Path
    """Folder with ImageSets/, JPEGImages/ and Annotations/."""
    subset: str = "val"
    """train or val."""
    resolution: str = "480p"
    """Subfolder of JPEGImages/ and Annotations/."""
    short_side: int = 480
    """Short side of the frames in pixels."""
    frames: int = 7
    """Number of preceding frames used as context, in addition to the first one."""
    radius: int = 12
    """Radius of the search window."""
    neighbors: int = 5
    """Number of most similar locations whose labels are propagated."""
    workers: tyro.conf.Suppress[int] = 0  # frames are read one by one, as masks are propagated
    masks: Path | None = None
    """Folder to write the predicted masks to."""


@dataclass(frozen=True, kw_only=True)
class SlidesOptions(EvalOptions):
    """Evaluate a backbone on slides by attention over the embeddings of their tiles, as on PANDA and BRIGHT.

        genviews evaluate slides BACKBONE --data PANDA/tiles --labels PANDA/train.csv
        genviews evaluate slides BACKBONE --data BRIGHT --level group
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate slides BACKBONE --data ... --runs 8

    A slide is a folder of tiles, png or jpg: DATA/<image_id>/<tile> beside a CSV, or DATA/train/<class>/<slide>/<tile>
    and DATA/test/..., or a file of embeddings of its tiles, <slide>.safetensors. Embeddings are stored, and an
    interrupted run continues. All processes share the slides to embed and the runs to train.
    """

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": (
            *("test_labels", "column", "held_out", "split_seed", "ignore_unlabeled", "train_split", "test_split"),
            "level",
        ),
        "execution": ("embeddings", "resume", "size", "resize", "batch_size"),
        "run": RUN,
    }

    data: Path
    """Folder of the slides."""
    labels: Path | None = None
    """A CSV with image_id and classes, as PANDA's train.csv; default: slides are in class folders."""
    test_labels: Path | None = None
    """CSV of the test slides; default: a fraction of the slides in --labels is held out."""
    column: str = "isup_grade"
    """Column of the classes in the CSV; integer classes are treated as grades."""
    held_out: float = 0.2
    """Fraction of the slides in the CSV to test on, within every class and data_provider."""
    split_seed: int = 0
    """Seed of the held-out slides; keep it the same for all backbones that are compared."""
    ignore_unlabeled: bool = False
    """Skip slides that are not in the CSV."""
    train_split: str = "train"
    test_split: str = "test"
    """Subfolders of DATA, for slides in class folders."""
    level: Literal["subtype", "group"] = "subtype"
    """Class folders to use: those that contain the slides (subtype), or the outermost (group)."""
    protocol: str = "clam"
    """Network and training protocol: clam or ilse."""
    epochs: int | None = None
    """Default: that of the protocol."""
    runs: int = 1
    """Number of trainings of the attention network, with seeds from --seed on; the result is their mean."""
    embeddings: Path = Path("runs/slides")
    """Folder of the stored embeddings of tiles, with a subfolder per backbone."""
    resume: Path | None = Path("runs/evaluate")
    """Folder of the resume files of interrupted trainings; None: no resume files."""
    size: int | None = None
    """Input size of the tiles in pixels; default: that of the training of the backbone."""
    resize: int | None = None
    """Short side before the center crop; default: the size, so that the whole tile is used."""
    batch_size: int = 256
    """Number of tiles per batch."""
    strict: tyro.conf.Suppress[bool] = True  # cached embeddings would not show that tiles are missing


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(EvalOptions):
    """Evaluate a frozen backbone on semantic segmentation: a linear head, mIoU, data in PASCAL VOC 2012's layout.

        genviews evaluate segmentation BACKBONE --data VOCdevkit
        genviews evaluate segmentation BACKBONE --data ECSSD --classes 2 --steps 500 --crop 128
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate segmentation BACKBONE --data VOCdevkit

    DATA, DATA/VOC2012 or DATA/VOCdevkit/VOC2012 has JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/. The
    protocol is DINOv2's: batch norm and a 1 x 1 convolution on the frozen feature map.
    """

    data: Path
    """Folder VOC2012, or a folder that contains it."""
    train_split: str = "train"
    test_split: str = "val"
    """Names of lists in ImageSets/Segmentation/."""
    classes: int = 21
    """Number of classes, including the background."""
    layer: str | None = None
    """Submodule whose feature map is used; default: the last feature map."""
    steps: int = 40_000
    batch_size: int = 16
    """Batch size over all processes; the learning rate is not scaled with it."""
    crop: int | None = None
    """Size of crops and windows in pixels; default: 512 for backbones of 224 px images, and in proportion."""
    short: int | None = None
    """Short side of the images; default: the crop size."""
    resume: Path | None = Path("runs/evaluate")
    """Folder of the resume files of interrupted trainings; None: no resume files."""
