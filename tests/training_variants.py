"""Train one small encoder in many ways; one process for all, because starting is slow.

python tests/training_variants.py FOLDER

Leaves FOLDER/VARIANT/ of each way and FOLDER/told.json: what was printed, raised and counted.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import signal
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
from sslzoo.training import CollapseDetector, TrainingMonitor, create_state, step_generator, train_step

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
BYOL = dataclasses.replace(
    DINO,
    method="byol",
    method_options={"hidden_dim": 16, "projection_dim": 8},
    per_param_clip_norm=None,
)
VIT = dataclasses.replace(
    DINO,
    backbone="timm/vit_tiny_patch16_224",
    backbone_options={"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "drop_path_rate": 0.5},
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


def overflow(folder: Path) -> dict[str, object]:
    """One step whose gradient overflows in fp16."""
    recipe = dataclasses.replace(DINO, precision="fp16")
    loader = open_loader(recipe, DataConfig(images=folder / "scenes" / "images"), WORKER)
    config = job.train_config(recipe, RuntimeConfig())
    state = create_state(job.build_method(recipe, WORKER), config, context=WORKER)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)  # pyright: ignore
    state.method.center.fill_(0.5)
    state.method.teacher.head.prototypes.direction.data.add_(1.0)
    before = {name: tensor.clone() for name, tensor in state.method.state_dict().items() if torch.is_tensor(tensor)}
    views = make_view_batch(next(iter(loader.epoch(0))), step_generator(0, 0, 0), recipe=recipe)
    train_step(state.method, views, state, config, steps_per_epoch=len(loader))
    after = state.method.state_dict()
    changed = {name for name in before if "running" not in name and "tracked" not in name}
    return {
        "changed": sorted(name for name in changed if not torch.equal(before[name], after[name])),
        "progress": state.method.progress,
        "pending": len(state.method.new_centers),
        "scale": state.scaler.get_scale(),
        "momenta": len(state.optimizer.state),
    }


def collapse() -> list[str | None]:
    """What is said where all features are alike, but for the fourth look and the last two."""
    monitor, detector, said = TrainingMonitor(job.build_method(DINO, WORKER), WORKER), CollapseDetector(), []
    for step, noise in enumerate((0.0, 1e-4, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)):
        monitor._hook._features.append(torch.ones(32, 32) + noise * torch.randn(32, 32))
        monitor.update(16)
        monitor.step()
        said.append(detector.check(step, monitor.summary() | {"std": 1.0, "information": 0.5}))
    return said


def main() -> None:
    """Every way."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    write_scenes(folder / "scenes", count=40, seed=0)
    write_scenes(folder / "test", count=16, seed=1)
    torch.amp.GradScaler = functools.partial(torch.amp.GradScaler, init_scale=2.0**8, growth_interval=2)
    half = dataclasses.replace(BYOL, precision="fp16", clip_grad_norm=1.0)
    hot = dataclasses.replace(DINO, optimizer="sgd", base_lr=1e18, per_param_clip_norm=None, final_weight_decay=None)
    few = dataclasses.replace(DINO, batch_size=64, epochs=1)
    eager = torch.nn.Module.compile
    torch.nn.Module.compile = lambda module: eager(module, backend="eager")
    told = {
        "plain": train(folder, "plain", probe=False),
        "watched": train(folder, "watched", knn_test=folder / "test" / "images", knn_every=1, peak_tflops=1.0),
        "stopped": train(folder, "stopped", stop_after=1),
        "resumed": train(folder, "stopped", loud=True),
        "few": train(folder, "few", few, loud=True, accumulation_steps=16),
        "few again": train(folder, "few", few, loud=True, accumulation_steps=16),
        "too few": train(folder, "none", dataclasses.replace(DINO, batch_size=82), accumulation_steps=41),
        "batch of one": train(folder, "none", dataclasses.replace(DINO, batch_size=16), accumulation_steps=16),
        "byol": train(folder, "byol", BYOL),
        "half": train(folder, "half", half),
        "half-stopped": train(folder, "half-stopped", half, stop_after=1),
        "half-resumed": train(folder, "half-stopped", half),
        "fused": train(folder, "fused", stop_after=1),
        "fused-resumed": train(folder, "fused", fused=True),
        "compiled": train(folder, "compiled", compile=True),
        "parts": train(folder, "parts", accumulation_steps=2, loud=True),
        "vit": train(folder, "vit", VIT),
        "checkpointed": train(folder, "checkpointed", VIT, checkpoint_activations=True),
        "hot": train(folder, "hot", hot, seconds=0.0),
        "three parts": train(folder, "none", accumulation_steps=3),
        "resnet checkpointed": train(folder, "none", checkpoint_activations=True),
        "lars fused": train(folder, "none", dataclasses.replace(DINO, optimizer="lars"), fused=True),
        "other classes": train(folder, "none", knn_test=folder / "scenes"),
        "overflow": overflow(folder),
        "collapse": collapse(),
    }
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
