"""Image retrieval on revisited Oxford and Paris: reading the official folders, and the evaluation.

    roxford5k/gnd_roxford5k.pkl     imlist, qimlist, gnd: a box, easy, hard and junk of each query
    roxford5k/jpg/<name>.jpg        every image of imlist and qimlist
    revisitop1m/jpg/...             further distractors, as listed in revisitop1m.txt; or any folder of images

https://github.com/filipradenovic/revisitop at be39832; https://arxiv.org/abs/1803.11285.

Shapes: b batch, h x w pixels, d feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from genviews_core.listing import visible
from ssl_eval.feature_maps import VariableSizeViT
from ssl_eval.image_files import ReaderConfig, blocks_of_features, features_of_files, images_in, rows_of_files
from ssl_eval.retrieval.ranking import RelevanceLabels, RetrievalScore, revisited_scores
from ssl_eval.retrieval.safe_pickle import as_list, read_pickle
from ssl_eval.text import read_names

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


@dataclass(frozen=True, kw_only=True)
class RevisitedSet:
    """A retrieval data set with its ground truth.

    Attributes:
        queries: query images.
        boxes: bounding box of each query.
        images: database images.
        relevance: relevance labels of each query.
    """

    queries: Sequence[Path]
    boxes: Sequence[Box]
    images: Sequence[Path]
    relevance: Sequence[RelevanceLabels]


def read_revisited(folder: str | Path) -> RevisitedSet:
    """Read the folder that contains gnd_<name>.pkl and jpg.

    Raises:
        ValueError: a file is missing or invalid.
    """
    folder = Path(folder)
    truths = sorted(folder.glob("gnd_*.pkl"))
    if len(truths) != 1:
        raise ValueError(
            f"expected one gnd_*.pkl in {folder}, got {len(truths)}; give the folder of gnd_roxford5k.pkl and jpg"
        )
    truth = read_pickle(truths[0])
    try:
        names = {key: [str(name) for name in as_list(truth[key])] for key in ("imlist", "qimlist")}
        relevance = [_judgement(each, len(names["imlist"])) for each in as_list(truth["gnd"])]
        boxes = [_box(each) for each in as_list(truth["gnd"])]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{truths[0]} is not a ground truth file ({type(error).__name__}: {error})") from None
    if len(relevance) != len(names["qimlist"]):
        raise ValueError(
            f"expected one judgment per query in {truths[0]}, got {len(relevance)} for {len(names['qimlist'])}"
        )
    if not any(len(each.easy) + len(each.hard) for each in relevance):
        raise ValueError(f"expected easy or hard images of at least one query in {truths[0]}, got none")
    images, queries = (_files(folder / "jpg", names[key]) for key in ("imlist", "qimlist"))
    return RevisitedSet(queries=queries, boxes=boxes, images=images, relevance=relevance)


def _judgement(truth: dict[str, Any], images: int) -> RelevanceLabels:
    rows = {kind: torch.tensor(as_list(truth[kind]), dtype=torch.long) for kind in ("easy", "hard", "junk")}
    largest = max(int(each.max()) for each in (*rows.values(), torch.zeros(1)) if len(each))
    if largest >= images:
        raise IndexError(f"image {largest} of {images}")
    return RelevanceLabels(**rows)


def _box(truth: dict[str, Any]) -> Box:
    left, top, right, bottom = (float(each) for each in as_list(truth["bbx"]))
    return left, top, right, bottom


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    files = [folder / f"{name}.jpg" for name in names]
    there = {path.name for path in visible(folder)} if folder.is_dir() else set()
    if missing := [path for path in files if path.name not in there]:
        raise ValueError(f"{len(missing)} of {len(files)} images are missing, first {missing[0]}")
    return files


def read_distractors(folder: str | Path) -> list[Path]:
    """Return the images listed in revisitop1m.txt, or without such a list all images of the folder.

    Raises:
        ValueError: the folder or a listed image is missing.
    """
    folder = Path(folder)
    listing = folder / "revisitop1m.txt"
    if not listing.is_file():
        return images_in(folder)
    files = [folder / "jpg" / line for line in read_names(listing)]
    if missing := next((path for path in files if not path.is_file()), None):
        raise ValueError(f"{missing}, listed in {listing}, is missing")
    return files


def evaluate_revisited(
    backbone: nn.Module,
    data: RevisitedSet,
    preparing: ReaderConfig,
    *,
    size: int = 224,
    scales: Sequence[float] = (1.0,),
    crop_queries: bool = False,
    distractors: Sequence[Path] = (),
) -> dict[str, RetrievalScore]:
    """Evaluate the cosine similarity of the backbone's output (class token or mean of the feature map).

    https://github.com/facebookresearch/dino, eval_image_retrieval.py at 7c446df: it uses size 224
    and one scale for Oxford, 512 and SCALES for Paris.

    Args:
        backbone: maps images to features [b, d]; wrapped in VariableSizeViT.
        data: see `read_revisited`.
        preparing: reader options; images keep their aspect ratio and are processed one by one.
        size: maximum length of the long side in pixels.
        scales: scale factors whose outputs are averaged.
        crop_queries: crop queries to their boxes, as in the revisited protocol but not in DINO's script.
        distractors: further database images; their features are not kept in memory.

    Raises:
        ValueError: `on_unreadable` raised, no positives can be read, or the features are not [b, d].
    """
    network: nn.Module = VariableSizeViT(backbone)
    if tuple(scales) != (1.0,):
        network = MultiScale(network, scales)
    preparing = replace(preparing, batch_size=1)
    boxes = data.boxes if crop_queries else None
    whole = partial(_shrunk, size=size, boxes=None)
    queries = features_of_files(network, data.queries, partial(_shrunk, size=size, boxes=boxes), preparing)
    database = features_of_files(network, data.images, whole, preparing)
    further = blocks_of_features(network, distractors, whole, preparing)
    rows = rows_of_files(database.places, len(data.images))
    relevance = [_remaining(data.relevance[query], rows) for query in queries.places.tolist()]
    scores = revisited_scores(
        queries.features, database.features, relevance, distractors=further, device=preparing.device
    )
    if not scores:
        raise ValueError("none of the relevant images can be read")
    return scores


def _remaining(relevance: RelevanceLabels, rows: Int64[Tensor, " n"]) -> RelevanceLabels:
    """Map judgements to the rows of the readable images."""
    kinds = {kind: rows[getattr(relevance, kind)] for kind in ("easy", "hard", "junk")}
    return RelevanceLabels(**{kind: rows[rows >= 0] for kind, rows in kinds.items()})


def _shrunk(place: int, image: Image.Image, size: int, boxes: Sequence[Box] | None) -> Image.Image:
    if boxes is not None:
        image = image.crop(boxes[place])  # pyright: ignore[reportArgumentType]
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


SCALES = (1.0, 2**-0.5, 0.5)
"""https://github.com/facebookresearch/dino, utils.py at 7c446df: multi_scale."""


class MultiScale(nn.Module):
    """Average a network's outputs over several scales of its input, and L2-normalize."""

    def __init__(self, network: nn.Module, scales: Sequence[float] = SCALES):
        super().__init__()
        self.network, self.scales = network, tuple(scales)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return one feature vector per image."""
        seen = [
            images if scale == 1 else interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            for scale in self.scales
        ]
        return normalize(torch.stack([self.network(each) for each in seen]).mean(dim=0), dim=1)
