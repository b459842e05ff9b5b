"""Measure the speed of this machine in seconds, with and without CUDA graphs, to plan the other parts.

On a GPU it runs in its own process, so that a failed graph capture does not affect the caller.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.gpu.cuda_graphs import tune
from benchmarks.gpu.device_eldm import DeviceELDM, real_config, tiny_config
from benchmarks.gpu.images import Split
from benchmarks.gpu.pretraining import AHEAD, Pretraining, Recipe
from viewgen.eldm.config import ELDMConfig

PROGRAM = Path(__file__).resolve().parent
MIN_SPEEDUP = 1.03  # required to use a CUDA graph
TIMEOUT = 90.0  # seconds
TINY = {"name": "resnet10", "width": 8, "cifar_stem": True}


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Speeds of a single process with exclusive use of the device.

    Attributes:
        pairs: pairs per second in pretraining, including augmentation.
        capture_pairs: whether pretraining runs as a CUDA graph.
        images: images per second in training the diffusion model.
        capture_images: whether training the diffusion model runs as a CUDA graph.
        views: views per second in sampling.
        notes: speeds of both variants, or the error of a failed capture.
    """

    pairs: float
    capture_pairs: bool
    images: float
    capture_images: bool
    views: float
    notes: tuple[str, ...] = ()


def start_trial(arguments: list[str]) -> subprocess.Popen[str]:
    """Start `benchmarks/gpu trial ARGUMENTS` as a subprocess; see `finish_trial`."""
    command = [sys.executable, str(PROGRAM), "trial", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish_trial(process: subprocess.Popen[str]) -> Speeds | None:
    """Wait for the trial and return its result; None if it failed or timed out."""
    try:
        printed, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    return Speeds(**json.loads(lines[-1])) if process.returncode == 0 and lines else None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Options of the subprocess that `start_trial` starts."""

    tiny: bool = False
    sampling_steps: int = 10
    guidance: float = 4.0
    device: str = "cuda"


def main(options: Trial) -> None:
    """Measure the speeds and print them as a line for `finish_trial`."""
    tune(options.device)
    recipe, config = sizes(options.tiny)
    settings = {"sampling_steps": options.sampling_steps, "guidance": options.guidance}
    print(json.dumps(asdict(measure_speeds(recipe, config, options.device, **settings))), flush=True)


def sizes(tiny: bool) -> tuple[Recipe, ELDMConfig]:
    """Return the configurations of encoder and diffusion model, tiny ones for tests."""
    if tiny:
        return Recipe(backbone=TINY, batch_size=16, half=False, probe_epochs=2), tiny_config()
    return Recipe(), real_config()


def measure_speeds(
    recipe: Recipe,
    config: ELDMConfig,
    device: str,
    *,
    sampling_steps: int,
    guidance: float,
    batches: int = AHEAD,
    recorded: bool = True,
) -> Speeds:
    """Measure training and sampling on random images, with CUDA graphs too if `recorded`."""
    recorded = recorded and device.startswith("cuda")
    pairs, capture_pairs, notes = _best(lambda on: _pairs(replace(recipe, capture=on), device, batches), recorded)
    images, capture_images, more = _best(lambda on: _images(config, device, on, batches), recorded)
    views = _views(config, device, sampling_steps, guidance)
    return Speeds(
        pairs=pairs,
        capture_pairs=capture_pairs,
        images=images,
        capture_images=capture_images,
        views=views,
        notes=(*notes, *more),
    )


def _best(measure: Callable[[bool], float], try_recorded: bool) -> tuple[float, bool, list[str]]:
    """Return the best speed, whether it uses a CUDA graph, and notes."""
    plain = measure(False)
    if not try_recorded:
        return plain, False, []
    try:
        recorded = measure(True)
    except Exception as error:  # fall back to eager execution on any capture error
        return plain, False, [f"not recorded: {type(error).__name__}: {error}"[:300]]
    note = f"plain {plain:.0f}, recorded {recorded:.0f} a second"
    return (recorded, True, [note]) if recorded > MIN_SPEEDUP * plain else (plain, False, [note])


def _pairs(recipe: Recipe, device: str, batches: int) -> float:
    training = Pretraining(_random(recipe.batch_size * batches, recipe.size, device), recipe, epochs=3, seed=0)
    training.train_epoch(0)
    started = training.now()
    training.train_epoch(1)
    training.train_epoch(2)
    return 2 * training.steps * training.batch / (training.now() - started)


def _images(config: ELDMConfig, device: str, capture: bool, batches: int) -> float:
    eldm = _build(config, device, capture)
    eldm.learn(60.0, most=4)
    _wait(device)
    return eldm.learn(60.0, most=2 * batches)["images_per_second"]


def _views(config: ELDMConfig, device: str, steps: int, guidance: float) -> float:
    eldm = _build(config, device, False)
    wanted = eldm.embeddings
    batch = len(wanted)
    eldm.generate(wanted, steps=2, guidance=guidance, seed=0, batch=batch)
    _wait(device)
    started = time.perf_counter()
    eldm.generate(wanted, steps=steps, guidance=guidance, seed=0, batch=batch)
    _wait(device)
    return batch / (time.perf_counter() - started)


def _build(config: ELDMConfig, device: str, capture: bool) -> DeviceELDM:
    count = 2048 if device.startswith("cuda") else 4
    split = _random(max(count, config.batch_size), config.resolution, device)
    return DeviceELDM(config, split, torch.randn(len(split), 512, device=device), capture=capture)


def _random(count: int, size: int, device: str) -> Split:
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, device=device)
    return Split(images=images, labels=torch.zeros(count, dtype=torch.long, device=device), classes=("one",))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
