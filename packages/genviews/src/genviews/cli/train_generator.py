"""Train a diffusion model of your own images on an encoder's embeddings (Gen-SIS's E-LDM).

    genviews train-generator IMAGES --encoder runs/cifar10-dino/backbone --out runs/eldm --preset 32
    genviews train-generator IMAGES --encoder ... --out ... --preset 256           # trains an autoencoder first
    genviews train-generator IMAGES --encoder ... --out ... --autoencoder FOLDER   # a pretrained one of diffusers
    genviews launch --standalone --nproc_per_node 8 -m genviews train-generator IMAGES --encoder ... --out ...

An interrupted command continues when it is called again. `uv run apps/train_generator` is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews.generator_training import TrainGeneratorOptions, run
from genviews.run_config import parse_options
from genviews_core.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run it."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parse_options(TrainGeneratorOptions, given, job="train-generator", description=__doc__)
    run(options)
