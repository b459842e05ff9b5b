"""The quickstart: encoders, a diffusion model of an encoder's embeddings, views, encoders that learn from the views."""

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
from genviews.run_config import write_config
from genviews_core.device import resolve_device
from genviews_core.files import atomic_write
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress

SCENES_TRAIN, SCENES_TEST = 2400, 1000
TRAIN_SEED, TEST_SEED = 0, 2
"""Seed 1 draws the validation scenes on which the quickstart's settings were chosen."""


def run(options: QuickstartOptions) -> None:
    """Run every job; a finished one is not repeated.

    Raises:
        ValueError: the images or options cannot be used, or the system ended a process.
    """
    started = time.monotonic()
    if min(options.seeds, options.processes or 1) < 1:
        raise ValueError(f"expected --seeds and --processes of 1 or more, got {options.seeds}, {options.processes}")
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
    """Submit each job when what it needs is there, so that no process waits while there is work."""
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
    """Return the folders of the user, or those of procedural scenes."""
    if options.data is not None:
        if not len(pairdata.index_images(options.data)):
            raise ValueError(f"expected images in {options.data}, got none; give another folder (--data)")
        return options.data, options.test
    sets = {"train": (SCENES_TRAIN, TRAIN_SEED), "test": (SCENES_TEST, TEST_SEED)}
    folder = options.out / "scenes"
    drawn = [workers.submit(f"{name} scenes", jobs.draw_scenes, folder / name, *what) for name, what in sets.items()]
    for future in drawn:
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
    """Generate one view of each image, and interpolated views for the picture; return the folder of the views."""
    shards = [(rank, workers.count) for rank in range(workers.count)]
    made = [
        workers.submit(f"views {rank + 1}/{of}", jobs.generate, images, False, (rank, of), *given)
        for rank, of in shards
    ]
    made.append(workers.submit("interpolated views", jobs.generate, images, True, (0, 1), *given))
    for future in made:
        future.result()
    workers.submit("manifests", jobs.merge_views, given[0]).result()
    return given[0].out / "views"


def _report(options: QuickstartOptions, results: list[Any], progress: Progress, seconds: float) -> None:
    """Print the table, what it says, and the paths of all outputs."""
    if results:
        table = accuracy_table(results)
        said = sentences(results, jobs.read_agreement(options))
        progress.console.print(table)
        for sentence in said:
            progress.message(sentence)
        atomic_write(options.out / "results.jsonl", "".join(result.line() + "\n" for result in results))
        written = "".join(f"- {sentence}\n" for sentence in said)
        atomic_write(options.out / "table.md", f"{table.markdown()}\n\n{written}")
    for name, what in WRITTEN.items():
        if (options.out / name).exists():
            progress.message(f"  {options.out / name}  {what}")
    progress.message(f"{seconds:.0f} seconds")


WRITTEN = {
    "pairs.png": "real, generated and interpolated images side by side",
    "curves.png": "loss curves",
    "table.md": "the table and what it says",
    "results.jsonl": "one line a result",
    "hand-made": "encoders trained on hand-made views: backbone/, log.jsonl, TensorBoard events",
    "generator": "the diffusion model, as a diffusers folder",
    "views": "one generative view an image, manifest.parquet",
    "interpolated": "the interpolated views of pairs.png, manifest.parquet",
    "generative": "encoders that also learned from generative views",
}
