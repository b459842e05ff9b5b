"""Mean and standard deviation of a generator's conditions over a sample of the images, for noise on embeddings.

Shapes: D the embedding size.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from genviews_core.files import atomic_write, make_folder, writing
from genviews_core.images import UnreadableImage
from viewgen.generator import Generator
from viewgen.keys import read_key
from viewgen.seeding import generator_for
from viewgen.sharded import Images, image_keys, open_images


def measure_statistics(
    images_root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    generator: Generator,
    *,
    count: int = 2048,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Float[Tensor, " D"]]:
    """Measure "mean" and "std" of each dimension of the conditions, and write them as safetensors.

    Args:
        images_root: folder of images, or shards of them.
        out: the file to write.
        generator: a generator with conditions that are vectors, or tokens that share one mean.
        count: number of images measured, drawn at random; images that cannot be read are left out.
        seed: seed of the sample.
        batch_size: images encoded together.
        on_progress: called with (images measured, images to measure).

    Raises:
        ValueError: if fewer than two images can be read.
    """
    total: Any = 0.0
    squares: Any = 0.0
    vectors = done = 0
    for images, wanted in _drawn(images_root, generator, count, seed, batch_size):
        encode = generator.encode if hasattr(generator, "prepare") else generator.condition  # type: ignore[attr-defined]
        made = encode(torch.stack(images)).double().flatten(0, -2)
        total, squares, vectors = total + made.sum(dim=0), squares + made.square().sum(dim=0), vectors + len(made)
        done += len(images)
        if on_progress is not None:
            on_progress(done, wanted)
    if done < 2:
        raise ValueError(f"expected two or more readable images in {images_root} to measure, got {done}; give more")
    mean = total / vectors
    std = (squares / vectors - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
    measured = {"mean": mean.float(), "std": std.float()}
    path = Path(out)
    make_folder(path.parent)
    with writing(path.parent):
        atomic_write(path, save(measured))
    return measured


def _drawn(
    images_root: str | os.PathLike[str], generator: Any, count: int, seed: int, batch_size: int
) -> Iterator[tuple[list[Tensor], int]]:
    """Yield batches of images drawn at random, with the number drawn."""
    with open_images(images_root) as images:
        keys = list(image_keys(images))
        drawn = torch.randperm(len(keys), generator=generator_for(seed, "statistics"))[:count].tolist()
        for batch in _batches(images, [keys[row] for row in sorted(drawn)], generator, batch_size):
            yield batch, len(drawn)


def _batches(root: Images, keys: list[str], generator: Any, batch_size: int) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for key in keys:
        try:
            image = read_key(root, key, getattr(generator, "input_size", None))
        except UnreadableImage:
            continue
        batch.append(generator.prepare(image) if hasattr(generator, "prepare") else image)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
