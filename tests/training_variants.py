"""Train one small encoder in many ways; one process for all, because starting is slow.

python tests/training_variants.py FOLDER

Leaves FOLDER/VARIANT/ of each way and FOLDER/told.json: what was printed, raised and counted.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining import job
from genviews.pretraining.options import DataConfig, RuntimeConfig
from genviews.recipes import RECIPES
from pairdata import write_scenes

WORKER = sslzoo.init_distributed({}, "cpu")
DINO = dataclasses.replace(
    RECIPES["cifar10-dino"](),
    backbone="resnet10",
    backbone_options={"cifar_stem": True, "stem_stride": 2, "width": 4},
    method_options={"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8, "freeze_fraction": 0.0},
    epochs=2,
    batch_size=16,
    warmup_epochs=0.0,
    precision="float32",
)


def train(
    folder: Path, name: str, recipe=DINO, *, stop_after: int | None = None, seconds=1e9, loud=False, **runtime
) -> str:
    """What it printed, and the error it ended with if any."""

    def on_step(step: int, total: int, scalars: dict[str, float]) -> None:
        if step == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            job.train_encoder(
                recipe,
                DataConfig(images=folder / "scenes" / "images"),
                folder / name,
                WORKER,
                runtime=RuntimeConfig(**runtime),
                on_step=on_step,
                on_message=print if loud else None,
                checkpoint_seconds=seconds,
                log_every=1,
            )
        except (sslzoo.TrainingInterrupted, FloatingPointError, ValueError) as error:
            print(f"{type(error).__name__}: {error}")
    return said.getvalue()


def main() -> None:
    """Every way."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    write_scenes(folder / "scenes", count=40, seed=0)
    write_scenes(folder / "test", count=16, seed=1)
    few = dataclasses.replace(DINO, batch_size=64, epochs=1)
    told = {
        "plain": train(folder, "plain", probe=False),
        "watched": train(folder, "watched", knn_test=folder / "test" / "images", knn_every=1, peak_tflops=1.0),
        "stopped": train(folder, "stopped", stop_after=1),
        "resumed": train(folder, "stopped", loud=True),
        "few": train(folder, "few", few, loud=True, accumulation_steps=16),
        "few again": train(folder, "few", few, loud=True, accumulation_steps=16),
        "too few": train(folder, "none", dataclasses.replace(DINO, batch_size=82), accumulation_steps=41),
        "batch of one": train(folder, "none", dataclasses.replace(DINO, batch_size=16), accumulation_steps=16),
        "three parts": train(folder, "none", accumulation_steps=3),
        "other classes": train(folder, "none", knn_test=folder / "scenes"),
    }
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
