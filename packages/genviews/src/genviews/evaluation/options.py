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
    """A backbone and its results."""

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
    """Measure how a backbone classifies, frozen or with few labels.

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
        "images": ("resize", "value_range"),
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
    """Text file with the names of the labelled images; default: drawn with the seed by semi-supervised protocols."""
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
    """Values mapped to black and white in images of more than 8 bits, such as 0 4095; use that of the training."""
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
    r"""Retrieval of landmarks by a frozen backbone: mean average precision on revisited Oxford and Paris.

        genviews evaluate retrieval BACKBONE --data DATA/roxford5k
        genviews evaluate retrieval BACKBONE --data DATA/rparis6k --size 512 --multi-scale
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate retrieval BACKBONE --data DATA/roxford5k \
            --distractors DATA/revisitop1m

    DATA/roxford5k holds gnd_roxford5k.pkl and jpg, as https://github.com/filipradenovic/revisitop makes it. The first
    two commands are those of https://github.com/facebookresearch/dino, eval_image_retrieval.py.
    """

    data: Path
    """The folder that holds gnd_<name>.pkl and jpg."""
    size: int = 224
    """The long side of images in pixels; smaller ones stay as they are."""
    multi_scale: bool = False
    """See every image at three scales."""
    crop_queries: bool = False
    """Cut the queries' boxes out, as the revisited protocol does and DINO's script does not."""
    distractors: Path | None = None
    """A folder of further images: revisitop1m with its list, or any."""


@dataclass(frozen=True, kw_only=True)
class CopyDetectionOptions(EvalOptions):
    """Copies of photographs found by a frozen backbone: mean average precision on Copydays.

        genviews evaluate copy-detection BACKBONE --data DATA/copydays
        genviews evaluate copy-detection BACKBONE --data DATA/copydays --distractors YFCC-10K --whitening YFCC-20K

    DATA/copydays holds original and strong, and jpegqual and crops if these are to be measured. The protocol is that of
    https://github.com/facebookresearch/dino, eval_copy_detection.py, which reports strong.
    """

    data: Path
    """The folder that holds original and strong."""
    size: int = 320
    """Size in pixels of the squares to which images are resized."""
    distractors: Path | None = None
    """Folder of images added to the database."""
    whitening: Path | None = None
    """Folder of images from which the whitening of the descriptors is computed."""
    batch_size: int = 16


@dataclass(frozen=True, kw_only=True)
class VideoOptions(EvalOptions):
    """Instances followed through videos by the features of a frozen backbone: J and F on DAVIS 2017.

        genviews evaluate video BACKBONE --data DATA/DAVIS
        genviews evaluate video BACKBONE --data DATA/DAVIS --masks found    # for the official evaluation

    DATA/DAVIS holds ImageSets, JPEGImages and Annotations. Labels are carried as in
    https://github.com/facebookresearch/dino, eval_video_segmentation.py, and measured as in
    https://github.com/davisvideochallenge/davis2017-evaluation.
    """

    data: Path
    """The folder that holds ImageSets, JPEGImages and Annotations."""
    subset: str = "val"
    """train or val."""
    resolution: str = "480p"
    """The folder in JPEGImages and Annotations."""
    short_side: int = 480
    """Short side of the frames in pixels."""
    frames: int = 7
    """Number of preceding frames used as context, in addition to the first one."""
    radius: int = 12
    """Radius of the search window."""
    neighbors: int = 5
    """Number of most similar locations whose labels are propagated."""
    workers: tyro.conf.Suppress[int] = 0  # a frame is read when the one before has its mask
    masks: Path | None = None
    """A folder to write the masks to."""


@dataclass(frozen=True, kw_only=True)
class SlidesOptions(EvalOptions):
    """Measure what a backbone is worth on slides: attention over their tiles' embeddings, as on PANDA and BRIGHT.

        genviews evaluate slides BACKBONE --data PANDA/tiles --labels PANDA/train.csv
        genviews evaluate slides BACKBONE --data BRIGHT --level group
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate slides BACKBONE --data ... --runs 8

    A slide is a folder of tiles, png or jpg: DATA/<image_id>/<tile> beside a CSV, or DATA/train/<class>/<slide>/<tile>
    and DATA/test/..., or a file of embeddings of its tiles, <slide>.safetensors. Embeddings are stored; an interrupted
    run continues. Slides are embedded, and runs trained, on as many processes as there are.
    """

    HELP_GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": (
            *("test_labels", "column", "held_out", "split_seed", "ignore_unlabelled", "train_split", "test_split"),
            "level",
        ),
        "execution": ("embeddings", "resume", "size", "resize", "batch_size"),
        "run": RUN,
    }

    data: Path
    """Holds the slides."""
    labels: Path | None = None
    """A CSV with image_id and classes, as PANDA's train.csv; default: slides are in class folders."""
    test_labels: Path | None = None
    """Such a CSV of the test slides; left out, a fraction of the others is held out."""
    column: str = "isup_grade"
    """Of the classes in the CSV; whole numbers are grades."""
    held_out: float = 0.2
    """Fraction of the slides in the CSV to test on, of every class and data_provider."""
    split_seed: int = 0
    """What the held-out slides are drawn from; the same for all backbones that are compared."""
    ignore_unlabelled: bool = False
    """Leave out slides that the CSV does not have."""
    train_split: str = "train"
    test_split: str = "test"
    """Folders of DATA where slides are in class folders."""
    level: Literal["subtype", "group"] = "subtype"
    """Which class folders count: those that slides lie in, or the outermost."""
    protocol: str = "clam"
    """clam or ilse: the network and its training."""
    epochs: int | None = None
    """Default: that of the protocol."""
    runs: int = 1
    """Trainings of the attention, of different seeds from --seed on; the mean is the result."""
    embeddings: Path = Path("runs/slides")
    """Where the tiles' embeddings are kept, in a folder for each backbone."""
    resume: Path | None = Path("runs/evaluate")
    """Folder of the resume files of interrupted trainings; None: no resume files."""
    size: int | None = None
    """Size of the tiles in pixels as the backbone sees them; default: that of its training."""
    resize: int | None = None
    """Short side before the center crop; default: the size, so that the whole tile is used."""
    batch_size: int = 256
    """Number of tiles per batch."""
    strict: tyro.conf.Suppress[bool] = True  # cached embeddings would not show that tiles are missing


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions(EvalOptions):
    """Measure what a backbone's last map is worth for segmentation: a linear head, mIoU, in PASCAL VOC 2012's layout.

        genviews evaluate segmentation BACKBONE --data VOCdevkit
        genviews evaluate segmentation BACKBONE --data ECSSD --classes 2 --steps 500 --crop 128
        torchrun --standalone --nproc_per_node=8 -m genviews evaluate segmentation BACKBONE --data VOCdevkit

    DATA, DATA/VOC2012 or DATA/VOCdevkit/VOC2012 holds JPEGImages, SegmentationClass and ImageSets/Segmentation. The
    protocol is DINOv2's: batch norm and a 1 x 1 convolution on the frozen map, ssl_eval/segmentation/.
    """

    data: Path
    """The folder VOC2012, or one around it."""
    train_split: str = "train"
    test_split: str = "val"
    """Lists of ImageSets/Segmentation."""
    classes: int = 21
    """Number of classes, including the background."""
    layer: str | None = None
    """Submodule whose feature map is used; default: the last feature map."""
    steps: int = 40_000
    batch_size: int = 16
    """Over all processes; the learning rate stays."""
    crop: int | None = None
    """Size of crops and windows in pixels; default: 512 for backbones of 224 px images, and in proportion."""
    short: int | None = None
    """Short side of the images; default: the crop size."""
    resume: Path | None = Path("runs/evaluate")
    """Folder of the resume files of interrupted trainings; None: no resume files."""
