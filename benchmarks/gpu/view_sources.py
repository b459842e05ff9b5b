"""Compare views from several sources: class agreement, retrieval baseline, contact sheet.

Shapes: N images, S side in pixels, D embedding dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import normalize

import sslzoo
from benchmarks.gpu.images import Split
from ssl_eval import class_agreement, far_agreement

NEAR = 4  # the retrieved view is drawn from this many nearest neighbors
Classify = Callable[[Tensor], Tensor]


def load_classifier(path: Path, device: str) -> Classify:
    """Return a function that maps UInt8[N, 3, S, S] images to classes, from a classifier checkpoint."""
    network, about = sslzoo.load_classifier(path)
    network = network.to(device)
    mean, std = (torch.tensor(about[name], device=device).view(3, 1, 1) for name in ("mean", "std"))

    @torch.no_grad()
    def classify(images: UInt8[Tensor, "N 3 S S"]) -> Int64[Tensor, " N"]:
        found = [network((some.to(device).float() / 255 - mean) / std).argmax(1) for some in images.split(4096)]
        return torch.cat(found)

    return classify


def agreements(classify: Classify, train: Split, views: dict[str, Tensor], *, most: int = 50_000) -> dict[str, float]:
    """Compute the class agreement in percent of the images, of each kind of views, and of views of other images.

    A source may have views of only the first images.
    """
    rows = slice(0, most)
    found = {"the images": class_agreement(classify(train.images[rows]), train.labels[rows]).share}
    far = {}
    for name, images in views.items():
        labels = train.labels[: len(images)][rows]
        guesses = classify(images[rows])
        found[name] = class_agreement(guesses, labels).share
        far[name] = far_agreement(guesses, labels).share
    if far:
        found["views of other images"] = next(iter(far.values()))
    return found


@torch.no_grad()
def nearest(
    embeddings: Float[Tensor, "N D"], *, near: int = NEAR, seed: int = 0, chunk: int = 4096
) -> Int64[Tensor, " N"]:
    """Return the index of a random one of the nearest other images for each image."""
    vectors = normalize(embeddings.float(), dim=1)
    near = min(near, len(vectors) - 1)
    generator, found = torch.Generator().manual_seed(seed), []
    for start in range(0, len(vectors), chunk):
        some = vectors[start : start + chunk]
        similarity = some @ vectors.T
        own = torch.arange(len(some), device=vectors.device)
        similarity[own, own + start] = -2
        best = similarity.topk(near, dim=1).indices
        drawn = torch.randint(near, (len(some), 1), generator=generator).to(vectors.device)
        found.append(best.gather(1, drawn)[:, 0])
    return torch.cat(found)


def contact_sheet(path: Path, train: Split, views: dict[str, Tensor], *, columns: int = 16, scale: int = 2) -> None:
    """Save a sheet with images, evenly spaced, in the first row and one row for each kind of views."""
    count = min([len(train), *(len(images) for images in views.values())])
    rows = torch.arange(min(columns, count)) * count // min(columns, count)
    sources = {"the images": train.images, **views}
    tile, margin = scale * train.images.shape[-1], 14
    sheet = Image.new("RGB", (len(rows) * (tile + 2), len(sources) * (tile + margin)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (name, images) in enumerate(sources.items()):
        draw.text((2, line * (tile + margin)), name, fill="black")
        for column, row in enumerate(rows.tolist()):
            pixels = images[row].permute(1, 2, 0).cpu().numpy()
            image_tile = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.NEAREST)
            sheet.paste(image_tile, (column * (tile + 2), line * (tile + margin) + margin))
    sheet.save(path)
