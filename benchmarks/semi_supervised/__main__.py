r"""Tables of few labels: fine-tune given encoders on 1% and 10% of the labels, and show published results too.

    uv run benchmarks/semi_supervised --grid imagenet --train IMAGENET/train --test IMAGENET/val --processes 8 \
        --lists imagenet_subsets --encoders "MoCo v2=runs/moco/backbone" "MoCo v2 + GenView=runs/genview/backbone"
    uv run benchmarks/semi_supervised --grid small --train CIFAR/train --test CIFAR/test \
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
from benchmarks.semi_supervised.grids import GRIDS
from genviews_core.command import command
from ssl_eval import EvalGrid, GridCell

EVALUATE = Path(__file__).resolve().parent.parent.parent / "apps" / "evaluate"


@dataclass(frozen=True, kw_only=True)
class SemiSupervised(EvalGrid):
    """A grid of fine-tunings."""

    lists: Path | None = None
    """Folder with SimCLR's 1percent.txt and 10percent.txt, for the grid of ImageNet."""
    results: Path = Path("runs/semi-supervised/results.jsonl")
    resume: Path = Path("runs/semi-supervised/resume")

    def labels(self, cell: GridCell) -> list[str]:
        """Return the arguments that name a list of labeled images.

        Raises:
            ValueError: the cell needs a list but --lists is not given.
        """
        return ssl_eval.list_argument(cell, self.lists)


def hash_of(folder: str) -> str:
    """Return the hash of the weights of an encoder."""
    return sslzoo.backbone_hash(sslzoo.resolve_backbone(folder)[0])


def run(options: SemiSupervised) -> ssl_eval.Table:
    """Compute missing results, then tabulate."""
    return options.fill(GRIDS, EVALUATE, hash_of, options.labels)


@command
def main() -> None:
    """Parse the command line and run; user errors are reported in one line."""
    Console(width=160).print(run(tyro.cli(SemiSupervised, description=__doc__)))


if __name__ == "__main__":
    main()
