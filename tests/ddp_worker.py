"""What two processes do together: parts of a step, and the end of a training.

torchrun --standalone --nproc_per_node=2 tests/ddp_worker.py FOLDER

Leaves FOLDER/parts.pt, the weights after two steps by number of parts, and FOLDER/RANK.json, what ended a training.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining import job
from genviews.pretraining.data import open_loader
from genviews.pretraining.options import DataConfig, RuntimeConfig
from genviews.pretraining.views import make_view_batch
from genviews.recipes import RECIPES
from pairdata import write_scenes
from sslzoo.training import ViewBatch, create_state, step_generator, train_step, trainer

# No batch norm: a vision transformer, and a head without.
RECIPE = dataclasses.replace(
    RECIPES["cifar10-moco-v2"](),
    backbone="timm/vit_tiny_patch16_224",
    backbone_options={"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8},
    method_options={"queue_size": 48, "projection_dim": 8, "momentum": 0.9},
    epochs=1,
    batch_size=16,
    warmup_epochs=0.0,
    precision="float32",
)


def steps_in_parts(folder: Path, worker: sslzoo.DistContext, parts: int) -> dict[str, torch.Tensor]:
    """The weights after two steps in float64."""
    loader = open_loader(RECIPE, DataConfig(images=folder / "scenes" / "images"), worker)
    config = job.train_config(RECIPE, RuntimeConfig(accumulation_steps=parts))
    state = create_state(job.build_method(RECIPE, worker).double(), config, context=worker)
    model = sslzoo.wrap_ddp(state.method)
    for batch in loader.epoch(0):
        views = make_view_batch(batch, step_generator(0, state.step, worker.rank), recipe=RECIPE)
        views = ViewBatch(views=[view.double() for view in views.views])
        train_step(model, views, state, config, steps_per_epoch=len(loader))
    return {name: tensor for name, tensor in state.method.state_dict().items() if torch.is_tensor(tensor)}


def ended_by(folder: Path, worker: sslzoo.DistContext) -> str:
    """The loss of the second process is not finite in step 7, which is not a step of synchronization."""
    recipe = dataclasses.replace(RECIPE, epochs=10)

    def spoiled(model, batch, state, config, **options):
        metrics = train_step(model, batch, state, config, **options)
        if state.step == 7 and worker.rank == 1:
            metrics["loss"] = metrics["loss"] * torch.nan
        return metrics

    trainer.train_step = spoiled
    try:
        job.train_encoder(recipe, DataConfig(images=folder / "scenes" / "images"), folder / "spoiled", worker)
    except FloatingPointError as error:
        return str(error)
    return "nothing"


def main() -> None:
    """Both."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    worker = sslzoo.init_distributed(os.environ, "cpu")
    if worker.is_main:
        write_scenes(folder / "scenes", count=40, seed=0)
    sslzoo.barrier()
    weights = {parts: steps_in_parts(folder, worker, parts) for parts in (1, 2, 4)}
    if worker.is_main:
        torch.save(weights, folder / "parts.pt")
    (folder / f"{worker.rank}.json").write_text(json.dumps(ended_by(folder, worker)))


if __name__ == "__main__":
    main()
