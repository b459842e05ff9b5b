"""Cost and benefit of kinds of views.

    uv run benchmarks/cost_benefit IMAGES VIEWS [VIEWS ...] --encoder open_clip/ViT-H-14:laion2b_s32b_b79k
    uv run benchmarks/cost_benefit my/train runs/views runs/retrieved --encoder runs/dino/backbone
    uv run benchmarks/cost_benefit cost my/train runs/views --inception pt_inception-2015-12-05-6726825d.pth
    uv run benchmarks/cost_benefit agreement my/train runs/views runs/retrieved --classifier resnet20-cifar10.th

The first two commands measure the cosine between images and their views (GenView's Table 10). `cost` measures accuracy,
FID, SSIM, milliseconds and parameters of views and of crop, jitter and blur (GenCL's Table 4). `agreement` measures how
often an independent classifier assigns views the class of their images. Each has --help; write a folder named cost or
agreement as ./cost or ./agreement.
"""

from __future__ import annotations

import sys

from rich.console import Console

from genviews_core.command import command


@command
def main() -> None:
    """Print the table named by the first argument; user errors are reported in one line."""
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
    words = arguments[:1]
    if words == ["cost"]:
        from benchmarks.cost_benefit.cost_table import main
    elif words == ["agreement"]:
        from benchmarks.cost_benefit.agreement_table import main
    else:
        words = []
        from benchmarks.cost_benefit.similarity_table import main
    Console(width=160).print(main(arguments[len(words) :]))


if __name__ == "__main__":
    main()
