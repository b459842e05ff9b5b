"""The command ``viewgen``: generate views of images, index, verify and show them, and embed images.

viewgen generate IMAGES --out VIEWS --generator unclip --model FOLDER --strength random

viewgen embed IMAGES --out EMBEDDINGS --encoder timm/resnet50.a1_in1k

viewgen statistics IMAGES --out FILE --generator ip-adapter --model FOLDER --adapter FILE

viewgen models

viewgen index VIEWS

viewgen verify VIEWS --repair

viewgen show IMAGES VIEWS --out sheet.png
"""

import inspect
import os
import sys
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from genviews_core.command import command
from genviews_core.progress import progress_bar
from viewgen.cli_options import options_dataclass
from viewgen.loading import GENERATORS, GeneratorSpec, generator_class
from viewgen.models import MODELS, models_table

FAILED = 3  # exit code of a run in which some images failed
UNCLEAN = 4  # exit code of a verification that found differences
GENERATOR = tyro.conf.arg(help=f"One of {', '.join(GENERATORS)}; with --help after it, shows its options.")


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Embed every image once, as the pool for retrieval or as conditions for a generator."""

    images: Annotated[str, tyro.conf.Positional]
    """Folder of images; or their .tar or .parquet shards: a folder, file or pattern, also s3://, hf:// or https://."""
    out: Path
    """Folder for the embeddings."""
    batch_size: int = 256
    workers: int = 4
    """Threads that read images."""
    device: str = "auto"
    """auto (a CUDA GPU if available, otherwise the CPU), cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True, kw_only=True)
class EmbedByEncoder(Embed):
    """Embed every image once, as the pool for retrieval or as conditions for a generator."""

    encoder: str | None = None
    """timm/<model> or a backbone folder such as runs/dino/backbone; alternatively give --generator and its options."""
    supervision: Literal["none", "labels", "captions"] | None = None
    """Supervision of the encoder's training; by default labels for timm/<model>, none for a backbone folder."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Measure mean and deviation of a generator's image embeddings, for a strength that is noise on them."""

    images: Annotated[str, tyro.conf.Positional]
    """Folder of images; or their .tar or .parquet shards: a folder, file or pattern, also s3://, hf:// or https://."""
    out: Path
    """File to write (.safetensors), for --statistics of `viewgen generate`."""
    count: int = 2048
    """Number of images measured, drawn at random."""
    seed: int = 0
    batch_size: int = 64
    device: str = "auto"
    """auto (a CUDA GPU if available, otherwise the CPU), cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Merge the journals of a run into VIEWS/manifest.parquet, or make one data set of the manifests of its shards."""

    views: Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check that manifest rows and view files agree."""

    views: Annotated[str, tyro.conf.Positional]
    repair: bool = False
    """Remove files and rows that do not agree; `viewgen generate` then generates these views again."""
    check_bytes: bool = False
    """Read every file and compare its SHA-256."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw a contact sheet: source images above, their views below."""

    images: Annotated[str, tyro.conf.Positional]
    views: Annotated[str, tyro.conf.Positional]
    out: Path = Path("views.png")
    count: int = 8
    """Number of images shown."""
    seed: int = 0
    """Seed of the choice of images."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """List known weights by generator; `viewgen generate --model` takes their names."""

    generator: Literal[tuple(MODELS)] | None = None  # type: ignore[valid-type]
    """List only the weights of one generator."""


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write VIEWS/<key>.<k>.png and VIEWS/manifest.parquet; run again, it generates only missing views."""

    images: Annotated[str, tyro.conf.Positional]
    """Folder of images; or their .tar or .parquet shards: a folder, file or pattern, also s3://, hf:// or https://."""
    out: str
    """Folder for the views; with --shards also a URL such as s3://bucket/views."""
    shards: bool = False
    """Write one tar of views with its Parquet manifest per shard of images; needs images in shards."""
    views_per_image: int = 1
    seed: int = 0
    strength: str | None = None
    """A number, random:A,B,... or adaptive:A,B,C,D,E; unclip, eldm also take random and adaptive without levels."""
    ratios: Path | None = None
    """Foreground ratios for adaptive strength (.parquet, .csv, .jsonl with key and foreground_ratio)."""
    list: Path | None = None
    """File with the keys of the images to use, one per line; by default all images."""
    embeddings: Path | None = None
    """Folder that `viewgen embed` wrote, to use as conditions."""
    interpolate: bool = False
    """Condition on an interpolation with another image; needs --embeddings."""
    alpha: tuple[float, float] = (0.3, 0.7)
    """Range from which the weight of the image itself is sampled."""
    partner: Literal["random", "nearest"] = "random"
    batch_size: int = 64
    image_format: Literal["png", "jpg", "tif"] = "png"
    """tif holds any number of channels."""
    engine: Literal["local", "ray"] = "local"
    devices: tuple[str, ...] | None = None
    """Devices to run one process each on, such as cuda:0 cuda:1; by default every GPU, or one process per CPU core."""
    actors: int | None = None
    """Number of actors of engine ray; by default one per GPU, or per CPU core without GPUs."""
    shard: tuple[int, int] = (0, 1)
    """Index and number of shards, for schedulers that start processes themselves."""
    workers: int = 4
    """Threads of each process that read images and write views."""
    dry_run: bool = False
    """Only measure a few batches on the first device, and print the time, disk and cost of the whole run."""
    price: float | None = None
    """Price of one device for an hour, for the cost that --dry-run prints."""


@command
def main() -> None:
    """Run the command line; a user's mistake ends with a one-line message."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # actors use this environment, also under `uv run`
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code.

    Raises:
        ValueError: for a user's mistake.
    """
    generate, embed, statistics = (_with_generator(kind, arguments) for kind in (Generate, Embed, Statistics))
    named = {"generate": generate, "embed": embed, "statistics": statistics}
    named |= {"models": Models, "index": Index, "verify": Verify, "show": Show}
    shown = [
        Annotated[kind, tyro.conf.subcommand(name, description=inspect.getdoc(kind))] for name, kind in named.items()
    ]
    commands: Any = Union[tuple(shown)]  # noqa: UP007
    chosen = tyro.cli(commands, prog="viewgen", args=arguments, description=__doc__)
    return next(command for kind, command in COMMANDS.items() if isinstance(chosen, kind))(chosen)


def _with_generator(kind: type, arguments: list[str]) -> type:
    """Return the command class with the options of the generator given on the command line, if any.

    Generator options may have the same names as encoder options, so `embed` has only one of the two sets.
    """
    spread = [part for argument in arguments for part in argument.split("=", 1)]
    name = spread[spread.index("--generator") + 1] if "--generator" in spread[:-1] else None
    if name in GENERATORS:
        options = options_dataclass(name, without={"device"})
        added = [
            ("generator", Annotated[Literal[name], GENERATOR]),
            ("options", Annotated[options, tyro.conf.arg(name="")]),
        ]
    elif kind is Embed and "--generator" not in spread:
        return EmbedByEncoder
    else:
        added = [("generator", Annotated[Literal[tuple(GENERATORS)], GENERATOR])]
    made = make_dataclass(kind.__name__, added, bases=(kind,), frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    return made


def _spec(command: Any) -> GeneratorSpec:
    chosen = {item.name: getattr(command.options, item.name) for item in fields(command.options)}
    return GeneratorSpec(command.generator, chosen)


def _generate(command: Any) -> int:
    import viewgen

    options = _run_options(command)
    if command.dry_run:
        return _dry_run(command, options)
    generate = viewgen.generate_shards if command.shards else viewgen.generate_views
    with progress_bar("shards" if command.shards else "views") as update:
        summary = generate(
            command.images,
            command.out,
            _spec(command),
            engine=command.engine,
            shard=command.shard,
            devices=_devices(command),
            actors=command.actors,
            on_progress=update,
            **options,
        )
    print(f"{summary.written} views written, {summary.already} already there, {summary.failed} failed")
    if command.shards:
        return FAILED if summary.failed else 0
    if command.shard == (0, 1):
        print(f"manifest: {viewgen.merge_journals(command.out)}")
    return _exit_code(Path(command.out), summary.failed)


def _run_options(command: Any) -> dict[str, Any]:
    """Return the options that `generate_views` and `estimate_run` share."""
    import viewgen

    ratios = None if command.ratios is None else viewgen.ForegroundRatios.read(command.ratios)
    levels = getattr(generator_class(command.generator), "strength_levels", None)
    return {
        "views_per_image": command.views_per_image,
        "seed": command.seed,
        "strength": None if command.strength is None else viewgen.parse_strength(command.strength, ratios, levels),
        "batch_size": command.batch_size,
        "image_format": command.image_format,
        "embeddings": None if command.embeddings is None else viewgen.Embeddings.load(command.embeddings),
        "interpolate": viewgen.Interpolation(alpha=command.alpha, partner=command.partner)
        if command.interpolate
        else None,
        "keys": None if command.list is None else _listed(command),
        "workers": command.workers,
    }


def _dry_run(command: Any, options: dict[str, Any]) -> int:
    import viewgen

    devices = _devices(command) or [None]
    estimate = viewgen.estimate_run(command.images, _spec(command), device=devices[0], **options)
    counts = sorted({1, 2, 4, 8, len(devices)})
    print(estimate.report(counts, command.price))
    return 0


def _listed(command: Generate) -> list[str]:
    """Return the keys of the list, with invalid ones, which the run records as failures."""
    from viewgen.keys import read_key_list

    assert command.list is not None
    keys, refused = read_key_list(command.list, command.images)
    return [*keys, *refused]


def _devices(command: Generate) -> list[str] | None:
    """Return the given devices, every GPU of this machine, or one CPU per core."""
    import torch

    from genviews_core.device import resolve_device

    if command.engine == "ray":
        return None
    if command.devices:
        return [str(resolve_device(name)) for name in command.devices]
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return gpus or ["cpu"] * len(os.sched_getaffinity(0))


def _embed(command: Any) -> int:
    import viewgen
    from genviews_core.device import resolve_device
    from viewgen.manifest.journal import read_failures

    device = resolve_device(command.device)
    if not isinstance(command, EmbedByEncoder):
        encoder: Any = viewgen.ConditionEncoder(_spec(command).load(str(device)))
    elif command.encoder is None:
        raise ValueError("expected --encoder timm/<model> or FOLDER, or --generator NAME with its options, got neither")
    else:
        encoder = viewgen.load_encoder(command.encoder, supervision=command.supervision, device=device)
    with progress_bar("embeddings") as update:
        embeddings = viewgen.embed_images(
            command.images,
            command.out,
            encoder,
            batch_size=command.batch_size,
            workers=command.workers,
            on_progress=update,
        )
    failed = sum(1 for _ in read_failures(command.out / "failures.jsonl"))
    print(f"{len(embeddings)} embeddings of length {embeddings.dim} in {command.out}")
    return _exit_code(command.out, failed)


def _statistics(command: Any) -> int:
    import viewgen
    from genviews_core.device import resolve_device

    generator = _spec(command).load(str(resolve_device(command.device)))
    with progress_bar("embeddings") as update:
        viewgen.measure_statistics(
            command.images,
            command.out,
            generator,
            count=command.count,
            seed=command.seed,
            batch_size=command.batch_size,
            on_progress=update,
        )
    print(f"mean and deviation of the embeddings: {command.out}")
    return 0


def _exit_code(folder: Path, failed: int) -> int:
    if failed:
        print(f"some images failed: see {folder / 'failures.jsonl'}", file=sys.stderr)
    return FAILED if failed else 0


def _models(command: Models) -> int:
    print(models_table(command.generator))
    return 0


def _index(command: Index) -> int:
    import viewgen

    if viewgen.holds_shards(command.views):
        print(f"{viewgen.ShardStore(command.views).write_metadata()} views: {command.views}/_metadata")
    else:
        print(viewgen.merge_journals(command.views))
    return 0


def _verify(command: Verify) -> int:
    import viewgen

    verify = viewgen.verify_shards if viewgen.holds_shards(command.views) else viewgen.verify_views
    report = verify(command.views, command.repair, check_bytes=command.check_bytes)
    wrong = {
        "row without file": report.rows_without_file,
        "file without row": report.files_without_row,
        "damaged": report.damaged,
        "broken line": report.broken_lines,
    }
    for what, paths in wrong.items():
        for path in paths:
            print(f"{what}: {path}")
    counts = ", ".join(f"{len(paths)} x {what}" for what, paths in wrong.items())
    print(f"{report.views} views: {counts}{'; repaired' if command.repair and not report.clean else ''}")
    return 0 if report.clean or command.repair else UNCLEAN


def _show(command: Show) -> int:
    import viewgen

    print(viewgen.contact_sheet(command.images, command.views, command.out, count=command.count, seed=command.seed))
    return 0


COMMANDS = {
    Generate: _generate,
    Embed: _embed,
    Statistics: _statistics,
    Models: _models,
    Index: _index,
    Verify: _verify,
    Show: _show,
}
