"""Measure a frozen encoder by weighted kNN and a linear probe.

uv run apps/evaluate runs/cifar10-dino/backbone --train DATA/train --test DATA/test
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

import ssl_eval
import sslzoo
from pairdata import LabelledImages


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Both data folders hold one folder a class; the test images are looked at once."""

    backbone: Annotated[Path, tyro.conf.Positional]
    """A backbone folder that apps/pretrain wrote."""
    train: Path
    test: Path
    name: str | None = None
    """The row's name in the table; left out, the backbone folder's path."""
    results: Path = Path("results.jsonl")
    """One JSON line a result is appended here; the table shows all of them."""
    size: int | None = None
    """Side of the images in pixels; None takes the training's."""
    resize: int | None = None
    """Short side before the centre crop; None takes size * 256 / 224 at 64 px and above, else size."""
    k: int = 20
    """Neighbours."""
    seed: int = 0
    """Seed of the encoder's training, as the table counts it."""
    batch_size: int = 256
    workers: int = 0
    device: str = "auto"


def evaluate(options: Evaluate) -> None:
    """Features of both sets, two measurements, a table."""
    worker = sslzoo.start_worker({}, options.device)
    expected = sslzoo.backbone_input(options.backbone)
    size = options.size or expected["size"]
    resize = options.resize or (round(size * 256 / 224) if size >= 64 else size)
    backbone = sslzoo.load_backbone(options.backbone).to(worker.device)
    loaders = [
        LabelledImages(
            root,
            size=size,
            resize=resize,
            mean=expected["mean"],
            std=expected["std"],
            batch_size=options.batch_size,
            workers=options.workers,
            device=str(worker.device),
        )
        for root in (options.train, options.test)
    ]
    if loaders[0].classes != loaders[1].classes:
        raise ValueError(f"{options.train} and {options.test} do not hold the same class folders")
    amp = torch.bfloat16 if worker.device.type == "cuda" else None
    train, test = (ssl_eval.extract_features(backbone, loader, device=worker.device, amp=amp) for loader in loaders)
    for result in ssl_eval.evaluate_frozen(
        train,
        test,
        backbone=sslzoo.backbone_hash(backbone),
        data=options.test.parent.name or options.test.name,
        recipe=options.name or str(options.backbone),
        seed=options.seed,
        k=options.k,
    ):
        ssl_eval.append_result(options.results, result)
    table = ssl_eval.tabulate(ssl_eval.read_results(options.results))
    shown = Table(*table.header, title="top-1 accuracy in percent")
    for row in table.rows:
        shown.add_row(*row)
    Console().print(shown)


def main() -> None:
    """Read the command line and run it; a user's mistake ends in one line."""
    try:
        evaluate(tyro.cli(Evaluate, description="Measure a frozen encoder by weighted kNN and a linear probe."))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
