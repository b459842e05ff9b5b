"""Number of sampling steps an E-LDM needs: views in few steps compared with views in many steps from the same noise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cosine_similarity

import sslzoo
import viewgen
from genviews_core.device import resolve_device

Sampler = Literal["ddim", "dpm"]
LEVELS = 255.0
COLUMNS = ("guidance", "sampler", "steps", "PSNR, dB", "L1, levels", "cosine to source", "to another", "views/s")


@dataclass(frozen=True, kw_only=True)
class SamplingAblation:
    """Compare steps, samplers and guidance with a many-step DDIM view from the same noise."""

    model: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained E-LDM."""
    encoder: str
    """Encoder of its training: a backbone folder or timm/MODEL."""
    embeddings: Path | None = None
    """Embeddings of its training images; default: MODEL/embeddings."""
    images: int = 64
    """Number of images for which views are generated."""
    steps: tuple[int, ...] = (4, 8, 12, 20, 50)
    guidance: tuple[float, ...] = (1.0, 2.0)
    reference_steps: int = 200
    batch_size: int = 32
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    device: str = "auto"


def measure_sampling(options: SamplingAblation) -> Iterator[tuple[str, ...]]:
    """Yield a row per guidance, sampler and number of steps; the first row is the reference, without distance."""
    options = replace(options, device=str(resolve_device(options.device)))
    embeddings = viewgen.Embeddings.load(options.embeddings or options.model / "embeddings")
    encoder = viewgen.load_encoder(options.encoder, other=sslzoo.resolve_backbone, device=options.device)
    if encoder.hash != embeddings.encoder_hash:
        raise ValueError(
            f"expected the encoder of the embeddings, got {options.encoder}; give {embeddings.encoder_name}"
        )
    rows = np.linspace(0, len(embeddings) - 1, min(options.images, len(embeddings)), dtype=np.int64).tolist()
    seeds = [viewgen.view_seed(options.seed, embeddings.keys[row], 0) for row in rows]
    sources = torch.from_numpy(embeddings.vectors[rows].astype(np.float32))
    for guidance in options.guidance:
        reference = None
        cases: list[tuple[Sampler, int]] = [("ddim", options.reference_steps)]
        cases += [(sampler, steps) for sampler in get_args(Sampler) for steps in options.steps]
        for sampler, steps in cases:
            views, seconds = paint(options, sources, seeds, sampler, steps, guidance)
            likeness = likenesses(encoder, views, sources, options.batch_size)
            distance = ("", "") if reference is None else distances(views, reference)
            reference = views if reference is None else reference
            speed = f"{len(views) / seconds:.1f}"
            yield (f"{guidance:g}", sampler, str(steps), *distance, *likeness, speed)


def paint(
    options: SamplingAblation,
    sources: Float[Tensor, "N D"],
    seeds: list[int],
    sampler: Sampler,
    steps: int,
    guidance: float,
) -> tuple[UInt8[Tensor, "N 3 H W"], float]:
    """Return a view of each source, and the seconds after a warm-up batch."""
    generator = viewgen.eldm.ELDMGenerator(
        options.model, steps=steps, guidance=guidance, sampler=sampler, device=options.device, dtype=options.dtype
    )
    size = options.batch_size
    generator.steps = 2
    generator.generate(sources[:size], seeds=seeds[:size])
    generator.steps, began = steps, time.perf_counter()
    views = [
        generator.generate(sources[start : start + size], seeds=seeds[start : start + size])
        for start in range(0, len(seeds), size)
    ]
    return torch.cat(views), time.perf_counter() - began


def distances(views: UInt8[Tensor, "N 3 H W"], reference: UInt8[Tensor, "N 3 H W"]) -> tuple[str, str]:
    """Return PSNR over all pixels in dB, and the mean absolute difference in levels of 256."""
    difference = views.double() - reference.double()
    psnr = 20 * np.log10(LEVELS) - 10 * np.log10(max(difference.square().mean().item(), 1e-12))
    return f"{psnr:.1f}", f"{difference.abs().mean().item():.2f}"


def likenesses(
    encoder: viewgen.ImageEncoder, views: UInt8[Tensor, "N 3 H W"], sources: Float[Tensor, "N D"], batch_size: int
) -> tuple[str, str]:
    """Return the mean cosine similarity of the embeddings of a view and of its source, and of another image."""
    embedded = torch.cat([encoder(part).cpu() for part in views.split(batch_size)])
    found = [cosine_similarity(embedded, other).mean().item() for other in (sources, sources.roll(1, 0))]
    return f"{found[0]:.3f}", f"{found[1]:.3f}"
