"""Measure foreground maps of an encoder's first principal component on images with object masks, at several sizes.

    uv run python benchmarks/foreground ecssd.tar --encoder cifar:resnet20-cifar10.th --sizes 32 64 96 128
    uv run python benchmarks/foreground ecssd.tar --encoder runs/dino/backbone --skip-border 1 --out results.jsonl
    uv run python benchmarks/foreground ecssd.tar --encoder open_clip/ViT-H-14:laion2b_s32b_b79k --sizes 224
    uv run python benchmarks/foreground ecssd.tar --encoder BACKBONE --sizes 224 448 --layers blocks.3 blocks.4 last

Masks are used only for evaluation. Baselines are a centered disc and random tokens, both with the same fraction of
foreground pixels as the map, and the map with the sign that fits the masks best.
With --layers, maps are fitted on every other image, * marks the layer with the best IoU there, and the lines show the
other images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from benchmarks.foreground.encoders import open_encoder
from benchmarks.foreground.masks import find_pairs, read_pairs, unpacked
from benchmarks.foreground.measure import Figures, Grid, measure, measure_layers
from genviews_core.command import command
from genviews_core.device import resolve_device
from pairquality import FeatureEncoder
from ssl_eval.append import append_line


@dataclass(frozen=True, kw_only=True)
class Foreground:
    """Orientation, IoU and F-measure of foreground maps."""

    data: Annotated[Path, tyro.conf.Positional]
    """Folder or tar with images/NAME.jpg and masks/NAME.png."""
    encoder: str
    """Name for pairquality.load_encoder; random/MODEL, a timm model; or cifar:FILE, a ResNet for CIFAR-10."""
    sizes: tuple[int, ...] = (32, 64, 96, 128)
    """Input sizes of the encoder in pixels."""
    layers: tuple[str, ...] = ()
    """Submodules to compare; "last" is the map before pooling. Default: that one, fitted on all images."""
    share_foreground: float = 0.4
    skip_border: int = 0
    batch_size: int = 50
    seed: int = 0
    """Seed of random weights and random maps."""
    device: str = "auto"
    out: Path | None = None
    """File to which a JSON line per size is appended."""


def run(options: Foreground) -> None:
    """Print a line of the table per size."""
    device = resolve_device(options.device)
    print(f"{options.encoder}, share {options.share_foreground:g}, border left out {options.skip_border}")
    print(
        " size   grid margin  sign  per image |  IoU: map  signed centre random |    F: map  signed centre random | s"
    )
    with tempfile.TemporaryDirectory() as scratch:
        pairs = find_pairs(unpacked(options.data, Path(scratch)))
        for size in options.sizes:
            began = time.monotonic()
            encoder = open_encoder(options.encoder, size, seed=options.seed, device=str(device))
            images, masks = read_pairs(pairs, size)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                figures = measured(encoder, images, masks, options)
            seconds = time.monotonic() - began
            for layer, grid, chosen, found in figures:
                print(
                    f"{line(size, grid, found, seconds)}{f'  {layer}' if layer else ''}{' *' if chosen else ''}",
                    flush=True,
                )
                if options.out is not None:
                    told = {**asdict(options), "data": str(options.data), "out": None, "sizes": None, "layers": None}
                    more = {
                        "size": size,
                        "layer": layer,
                        "chosen": chosen,
                        "encoder_hash": encoder.hash,
                        "seconds": seconds,
                    }
                    append_line(options.out, json.dumps({**told, **more, **asdict(found)}))
            for warning in caught:
                print(f"  warning: {warning.message}", file=sys.stderr)


def measured(
    encoder: FeatureEncoder, images: Tensor, masks: Tensor, options: Foreground
) -> list[tuple[str | None, Grid, bool, Figures]]:
    """Return layer, grid, whether the other half of the images chooses it, and figures of each map."""
    settings: dict[str, Any] = {
        "share_foreground": options.share_foreground,
        "skip_border": options.skip_border,
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    if not options.layers:
        return [(None, encoder.grid, False, measure(encoder, images, masks, **settings))]
    layers = measure_layers(encoder, options.layers, images, masks, **settings)
    best = max(layers, key=lambda layer: layers[layer][1].iou_map)
    return [(layer, grid, layer == best, found) for layer, (grid, _, found) in layers.items()]


def line(size: int, grid: tuple[int, int], found: Figures, seconds: float) -> str:
    """Return a row of the table."""
    sign = "right" if found.sign_right else "WRONG"
    shares = [
        "".join(f"{getattr(found, f'{kind}_{of}'):>8.3f}" for of in ("map", "signed", "centre", "random"))
        for kind in ("iou", "f")
    ]
    head = f"{size:>5} {grid[0]:>3}x{grid[1]:<3}{found.margin:>6.2f}  {sign}  {found.sign_right_per_image:>9.3f}"
    return f"{head} |   {shares[0]} |   {shares[1]} | {seconds:.0f}"


@command
def main() -> None:
    """Parse the command line and run; user errors are reported in one line."""
    run(tyro.cli(Foreground, description=__doc__))


if __name__ == "__main__":
    main()
