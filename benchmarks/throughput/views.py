"""Images per second and memory of each generator; unCLIP against diffusers' pipeline with the same weights.

The time is from a decoded image, or from its cached condition, to 8-bit pixels on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from diffusers import StableUnCLIPImg2ImgPipeline
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

import viewgen
from benchmarks.throughput.random_models import EMBEDDING, Scale, save_random
from benchmarks.throughput.subprocess_timer import OUT_OF_MEMORY, Measured, SubprocessTimer
from benchmarks.throughput.timing import rates

Options = dict[str, Any]
Name = Literal["unclip", "icgan", "maskgit", "eldm", "eldm-32"]
Row = tuple[str, ...]
GENCL = {"icgan": "GenCL: 19.82 ms, its machine", "maskgit": "GenCL: 98.93 ms, its machine"}  # its table, batch 1
LEVELS = (0, 100, 200, 300, 400)  # GenView's
STEPS, GUIDANCE, LEVEL = 20, 10.0, 200
SOURCE_SIDE = 512  # pixels of the images, where a generator takes any
GROWTH = 1.05  # in images/s, from which a doubled batch counts as better


@dataclass(frozen=True, kw_only=True)
class ViewsBenchmark:
    """Images per second and peak memory of the generators, with random weights in the official formats.

    Attributes:
        generators: generators to measure; eldm is the preset "256", eldm-32 the preset "32".
        scale: "real" is the published size and the default on a GPU; "small", the default on a CPU, is narrower
            (except IC-GAN); "tiny" is for tests, its speed is meaningless.
        dtype: type of the networks; default: float16 on a GPU, float32 on a CPU.
        compile: compile our networks; the pipeline is not compiled.
        largest_batch: batch sizes are doubled up to this while that gives 5% more images/s and memory suffices.
        rounds: number of timed rounds, after a warm-up round.
        device: device of the generators.
    """

    generators: tuple[Name, ...] = ("unclip", "icgan", "maskgit", "eldm", "eldm-32")
    scale: Scale | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    compile: bool = False
    largest_batch: int = 256
    rounds: int = 5
    device: str = "cpu"


def measure_views(options: ViewsBenchmark) -> Iterator[Row]:
    """Yield a row per implementation and batch: images/s, ms per image, peak memory in GB with weights, baseline."""
    on_cpu = options.device == "cpu"
    scale: Scale = options.scale or ("small" if on_cpu else "real")
    dtype = options.dtype or ("float32" if on_cpu else "float16")
    for name in options.generators:
        with TemporaryDirectory() as folder:
            settings = {**save_random(name, scale, Path(folder)), "device": options.device, "dtype": dtype}
            cells = _unclip(settings, options) if name == "unclip" else _alone(name, settings, options)
        for row in cells:
            yield (f"{name}, {scale}, {dtype}", *row)


def _unclip(settings: Options, options: ViewsBenchmark) -> list[Row]:
    """Measure the pipeline, ours with batch size 1 and the best one, and five noise levels in one batch, in turn."""
    settings = {**settings, "noise_level": LEVEL, "steps": STEPS, "guidance": GUIDANCE}
    with (
        SubprocessTimer(Pipeline, settings) as pipeline,
        SubprocessTimer(Ours, {**settings, "name": "unclip", "compile": options.compile}) as ours,
    ):
        peak = pipeline.measure("from images", 1, rounds=1).peak
        tried, best = try_batches(ours, "from images", options)
        batch = best if best > 1 else max(tried)  # several noise levels need several images
        calls = {
            "pipeline": partial(pipeline.call, "from images", 1),
            "one": partial(ours.call, "from images", 1),
            "batch": partial(ours.call, "from images", batch),
            "levels": partial(ours.call, "five levels", batch),
        }
        a_second = rates(calls, items=1, rounds=options.rounds, warmup=1)
        mixed = ours.measure("five levels", batch, rounds=1).peak
    theirs, one, many = a_second["pipeline"], a_second["one"], batch * a_second["batch"]
    longer = 100 * (a_second["batch"] / a_second["levels"] - 1)
    return [
        _row("diffusers' pipeline", 1, Measured(theirs, peak)),
        _row("from images", 1, Measured(one, tried[1].peak), f"{one / theirs:.2f}x the pipeline"),
        _row("from images", batch, Measured(many, tried[batch].peak), f"{many / theirs:.2f}x the pipeline"),
        _row("five levels", batch, Measured(batch * a_second["levels"], mixed), f"{longer:+.1f}% time"),
    ]


def _alone(name: str, settings: Options, options: ViewsBenchmark) -> list[Row]:
    """Measure batch size 1 and the best batch size."""
    rows = []
    kind = name.partition("-")[0]
    with SubprocessTimer(Ours, {**settings, "name": kind, "compile": options.compile}) as ours:
        for work in ("from conditions",) if kind == "eldm" else ("from images", "from conditions"):
            tried, best = try_batches(ours, work, options)
            rows.append(_row(work, 1, tried[1], GENCL.get(name, "")))
            if best > 1:
                rows.append(_row(work, best, tried[best]))
    return rows


def try_batches(ours: SubprocessTimer, work: str, options: ViewsBenchmark) -> tuple[dict[int, Measured], int]:
    """Measure increasing batch sizes; return all results and the best batch size."""
    tried, best = {1: ours.measure(work, 1, rounds=options.rounds)}, 1
    while 2 * best <= options.largest_batch:
        try:
            tried[2 * best] = ours.measure(work, 2 * best, rounds=options.rounds)
        except OUT_OF_MEMORY:
            ours.restart()
            break
        if tried[2 * best].rate < GROWTH * tried[best].rate:
            break
        best *= 2
    return tried, best


def _row(work: str, batch: int, measured: Measured, beside: str = "") -> Row:
    return work, str(batch), f"{measured.rate:.3g}", f"{1000 / measured.rate:.4g}", f"{measured.peak:.2f}", beside


class Ours:
    """A generator of viewgen, and images for it."""

    def __init__(self, *, name: str, **options: Any) -> None:
        self.generator: Any = viewgen.load_generator(name, **options)
        self.embedded = name == "eldm"  # conditioned on given embeddings; random ones take the same time

    def prepare(self, work: str, batch: int) -> Callable[[], Tensor]:
        """Return a function that generates views of images, of conditions, or with a noise level per image."""
        make, seeds, levels = self.generator, range(batch), None
        if work == "from conditions":
            condition = torch.randn(batch, EMBEDDING) if self.embedded else make.condition(self._images(batch))
            return lambda: make.generate(condition, seeds=seeds)
        if work == "five levels":
            levels = torch.tensor([float(LEVELS[index % len(LEVELS)]) for index in seeds])
        images = self._images(batch)
        return lambda: make.generate(make.condition(images), seeds=seeds, strength=levels)

    def _images(self, batch: int) -> Tensor:
        return random_images(batch, self.generator.input_size or SOURCE_SIDE)


class Pipeline:
    """diffusers' pipeline with one image per call, as in GenView's script, and seeded so that its views equal ours."""

    def __init__(
        self, *, model: str, steps: int, guidance: float, noise_level: int, output_size: int, device: str, dtype: str
    ) -> None:
        number = getattr(torch, dtype)
        loaded = StableUnCLIPImg2ImgPipeline.from_pretrained(model, torch_dtype=number, low_cpu_mem_usage=False)
        self.pipeline: Any = loaded.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.options = {"num_inference_steps": steps, "guidance_scale": guidance, "noise_level": noise_level}
        self.size = (output_size, output_size)

    def prepare(self, work: str, batch: int) -> Callable[[], list[Image.Image]]:
        """Return a function that generates views of images."""
        assert work == "from images"
        pictures = [to_pil_image(image) for image in random_images(batch, SOURCE_SIDE)]
        return lambda: [self._view(picture, seed) for seed, picture in enumerate(pictures)]

    def _view(self, picture: Image.Image, seed: int) -> Image.Image:
        generator = torch.Generator().manual_seed(seed)
        return self.pipeline(picture, prompt="", generator=generator, **self.options).images[0].resize(self.size)


def random_images(count: int, side: int) -> Tensor:
    """Return random images, the same on every call."""
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
