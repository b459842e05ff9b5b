r"""Tables of frozen encoders: evaluate given encoders with every protocol of a grid, and show published results too.

    uv run benchmarks/linear --grid imagenet --train IMAGENET/train --test IMAGENET/val \
        --encoders "MoCo v2=runs/moco/backbone" "MoCo v2 + GenView=runs/genview/backbone" --processes 8
    uv run benchmarks/linear --grid small --train CIFAR/train --test CIFAR/test \
        --encoders "hand-made views=runs/dino/backbone" "generated views=runs/gen-dino/backbone"

Each result is from a run of apps/evaluate. Existing results are not computed again; interrupted runs continue.
The table is also written beside the results, as Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

import ssl_eval
import sslzoo
from benchmarks.linear.grids import GRIDS
from genviews_core.command import command
from ssl_eval import EvalGrid

EVALUATE = Path(__file__).resolve().parent.parent.parent / "apps" / "evaluate"


@dataclass(frozen=True, kw_only=True)
class Linear(EvalGrid):
    """A grid of linear and kNN evaluations."""

    results: Path = Path("runs/linear/results.jsonl")
    resume: Path = Path("runs/linear/resume")


def hash_of(folder: str) -> str:
    """Return the hash of the weights of an encoder."""
    return sslzoo.backbone_hash(sslzoo.resolve_backbone(folder)[0])


def run(options: Linear) -> ssl_eval.Table:
    """Compute missing results, then tabulate."""
    return options.fill(GRIDS, EVALUATE, hash_of)


@command
def main() -> None:
    """Parse the command line and run; user errors are reported in one line."""
    Console(width=160).print(run(tyro.cli(Linear, description=__doc__)))


if __name__ == "__main__":
    main()
