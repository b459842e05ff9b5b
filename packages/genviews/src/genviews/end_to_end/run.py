"""Order of the quickstart's jobs: encoders, a diffusion model on embeddings, views, encoders trained on the views."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pairdata
from genviews.end_to_end import jobs
from genviews.end_to_end.jobs import GENERATIVE, HAND_MADE, UNTRAINED, Encoder
from genviews.end_to_end.options import QuickstartOptions
from genviews.end_to_end.report import accuracy_table, sentences
from genviews.end_to_end.workers import Workers, start_workers, usable_cores
from genviews.processes import require_main_process
from genviews.run_config import write_config
from genviews_core.device import resolve_device
from genviews_core.files import atomic_write
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress

SCENES_TRAIN, SCENES_TEST = 2400, 1000
TRAIN_SEED, TEST_SEED = 0, 2
"""Seed 1 is for the validation scenes with which the quickstart's settings were chosen."""


def run(options: QuickstartOptions) -> None:
    """Run every job that is not finished.

    Raises:
        ValueError: the images or options cannot be used, the system ended a process, or this is not the first process
            of torchrun.
    """
    require_main_process("quickstart")
    started = time.monotonic()
    if min(options.seeds, options.processes or 1) < 1:
        raise ValueError(
            f"expected --seeds and --processes of 1 or more, got {options.seeds} and {options.processes}; change them"
        )
    device = resolve_device(options.device)
    on_cpu = device.type == "cpu"
    count = options.processes or (usable_cores() if on_cpu else 1)
    with (
        lock_folder(options.out),
        Progress() as progress,
        start_workers(count, single_threaded=on_cpu, progress=progress) as workers,
    ):
        write_config(options.out, "quickstart", options)
        results = _run_jobs(options, str(device), workers)
        _report(options, results, progress, time.monotonic() - started)


def _run_jobs(options: QuickstartOptions, device: str, workers: Workers) -> list[Any]:
    """Submit each job as soon as its inputs exist, so that no process is idle while there is work."""
    images, test = _images(options, workers)
    given = options, device
    encoder = Encoder(variant=HAND_MADE, seed=0, images=images, test=test)
    seeds = range(options.seeds)
    hand_made = [_train(dataclasses.replace(encoder, seed=seed), given, workers) for seed in seeds]
    hand_made[0].result()
    backbone = encoder.folder(options) / "backbone"
    generator = workers.submit("diffusion model", jobs.train_generator, images, backbone, *given)
    untrained = [_evaluate_untrained(encoder, seed, given, workers) for seed in seeds] if test else []
    generator.result()
    views = _generate(images, given, workers)
    encoder = dataclasses.replace(encoder, variant=GENERATIVE, views=views)
    generative = [_train(dataclasses.replace(encoder, seed=seed), given, workers) for seed in seeds]
    others = [workers.submit("plots", jobs.draw_plots, images, options)]
    if test:
        others.append(workers.submit("class agreement", jobs.measure_agreement, images, test, *given))
    results = [result for future in (*untrained, *hand_made, *generative) for result in future.result()]
    for future in others:
        future.result()
    return results


def _images(options: QuickstartOptions, workers: Workers) -> tuple[Path, Path | None]:
    """Return the folders of training and test images: the user's, or procedural scenes."""
    if options.data is not None:
        if not len(pairdata.index_images(options.data)):
            raise ValueError(f"expected images in {options.data}, got none; give another folder (--data)")
        return options.data, options.test
    sets = {"train": (SCENES_TRAIN, TRAIN_SEED), "test": (SCENES_TEST, TEST_SEED)}
    folder = options.out / "scenes"
    futures = [workers.submit(f"{name} scenes", jobs.draw_scenes, folder / name, *args) for name, args in sets.items()]
    for future in futures:
        future.result()
    return folder / "train" / "images", folder / "test" / "images"


def _train(encoder: Encoder, given: tuple[QuickstartOptions, str], workers: Workers) -> Future[Any]:
    return workers.submit(encoder.name, jobs.train, encoder, *given)


def _evaluate_untrained(
    encoder: Encoder, seed: int, given: tuple[QuickstartOptions, str], workers: Workers
) -> Future[Any]:
    untrained = dataclasses.replace(encoder, variant=UNTRAINED, seed=seed)
    return workers.submit(untrained.name, jobs.evaluate_untrained, untrained, *given)


def _generate(images: Path, given: tuple[QuickstartOptions, str], workers: Workers) -> Path:
    """Generate one view of each image, and interpolated views for pairs.png; return the folder of the views."""
    shards = [(rank, workers.count) for rank in range(workers.count)]
    futures = [
        workers.submit(f"views {rank + 1}/{of}", jobs.generate, images, False, (rank, of), *given)
        for rank, of in shards
    ]
    futures.append(workers.submit("interpolated views", jobs.generate, images, True, (0, 1), *given))
    for future in futures:
        future.result()
    workers.submit("manifests", jobs.merge_views, given[0]).result()
    return given[0].out / "views"


def _report(options: QuickstartOptions, results: list[Any], progress: Progress, seconds: float) -> None:
    """Print and write the table and its summary, and print the paths of all outputs."""
    if results:
        table = accuracy_table(results)
        summary = sentences(results, jobs.read_agreement(options))
        progress.console.print(table)
        for sentence in summary:
            progress.message(sentence)
        atomic_write(options.out / "results.jsonl", "".join(result.line() + "\n" for result in results))
        items = "".join(f"- {sentence}\n" for sentence in summary)
        atomic_write(options.out / "table.md", f"{table.markdown()}\n\n{items}")
    for name, description in OUTPUTS.items():
        if (options.out / name).exists():
            progress.message(f"  {options.out / name}  {description}")
    progress.message(f"{seconds:.0f} seconds")


OUTPUTS = {
    "pairs.png": "real, generated and interpolated images side by side",
    "curves.png": "loss curves",
    "table.md": "the table and its summary",
    "results.jsonl": "one JSON line per result",
    "hand-made": "encoders trained on hand-made views: backbone/, log.jsonl, TensorBoard events",
    "generator": "the diffusion model, as a diffusers folder",
    "views": "one generative view per image, manifest.parquet",
    "interpolated": "the interpolated views of pairs.png, manifest.parquet",
    "generative": "encoders that also learned from generative views",
}
