"""The list of checks, most important first, and the parsing of their output into results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.gpu.records import Recorder

_ENDED = "PASSED|FAILED|SKIPPED|ERROR"
OUTCOME = re.compile(rf"(?:(?P<first>{_ENDED}) )?(?P<test>\S+::\S+)(?: (?P<last>{_ENDED})\b)?")
METHODS = ("SimCLR", "MoCo v2", "SimSiam", "BYOL", "SwAV", "VICReg", "Barlow Twins", "DINO")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A program with a time limit.

    Attributes:
        name: name of the check.
        words: arguments of python, run from the repository root.
        part: `part` field of its results.
        limit: maximum number of seconds.
        least: minimum number of remaining seconds to start it.
    """

    name: str
    words: tuple[str, ...]
    part: str = "throughput"
    limit: float = 60.0
    least: float = 10.0

    def take(self, line: str, record: Recorder) -> None:
        """Record one line of the program's output: a table row or the outcome of a test."""
        if self.part == "throughput" and line.startswith("{"):
            row = json.loads(line)
            first = next(iter(row))
            about = {"check": self.name, first: row[first], **{key: row[key] for key in ABOUT if key in row}}
            record(self.name.partition(":")[0], about=about, **row)
        elif self.part == "tests":
            found = OUTCOME.search(line)
            outcome = found and (found["first"] or found["last"])
            if found and outcome:
                record("test", about={"test": found["test"]}, outcome=outcome)


ABOUT = ("backbone", "precision", "work", "batch")
"""Columns that distinguish the rows of one check."""


def all_checks(device: str, *, tiny: bool) -> list[Check]:
    """Return all checks at real sizes, or at tiny sizes for tests."""
    return [*_tests(device, tiny), *_steps(device, tiny), *_augmentations(device, tiny), *_generators(device, tiny)]


def _tests(device: str, tiny: bool) -> Iterator[Check]:
    chosen = ["-m", "gpu"] if device == "cuda" else ["-m", "not gpu and not slow", "-k", "crops or prefetch"]
    many = [] if tiny else ["-n", "6", "--dist", "worksteal"]
    files = ["tests/test_on_gpu.py"] + ([] if tiny else ["tests/test_gpu_benchmark.py"])
    words = ("-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short", "--timeout=100", *chosen, *many, *files)
    yield Check(name="tests", words=words, part="tests", limit=110.0)


def _steps(device: str, tiny: bool) -> Iterator[Check]:
    if tiny:
        yield _step("resnet18", 16, 4, ("SimSiam",), device, rounds=1, precisions=("float32",))
        return
    yield _step("resnet50", 224, 128, ("SimSiam", "BYOL"), device, rounds=8, more=("--profile",))
    yield _step("vit_small", 224, 128, ("DINO",), device, rounds=8, more=("--profile",))
    yield _step("resnet18", 32, 512, METHODS, device, rounds=20)
    yield _step("resnet50", 224, 128, ("SimSiam",), device, rounds=8, compiled=True, limit=90.0)
    yield _step("vit_small", 224, 128, ("DINO",), device, rounds=8, compiled=True, limit=90.0)
    yield _step("resnet18", 32, 512, ("SimCLR",), device, rounds=20, compiled=True, limit=90.0)


def _step(
    backbone: str,
    size: int,
    batch: int,
    methods: Sequence[str],
    device: str,
    *,
    rounds: int,
    precisions: Sequence[str] = ("bf16",),
    compiled: bool = False,
    more: Sequence[str] = (),
    limit: float = 60.0,
) -> Check:
    words = ["step", "--backbone", backbone, "--image-size", str(size), "--batch-size", str(batch)]
    words += ["--methods", *methods, "--precisions", *precisions, "--rounds", str(rounds)]
    name = f"step: {backbone}{', compiled' if compiled else ''}"
    return _throughput(name, [*words, *["--compile"] * compiled, *more], device, limit=limit)


def _augmentations(device: str, tiny: bool) -> Iterator[Check]:
    few = ["--batch-size", "4", "--rounds", "1"] if tiny else ["--batch-size", "512", "--rounds", "20"]
    yield _throughput("augmentation", ["augmentation", "--no-per-image", *few], device, limit=40.0)


def _generators(device: str, tiny: bool) -> Iterator[Check]:
    scale = ["--scale", "tiny", "--rounds", "1", "--largest-batch", "2"] if tiny else ["--rounds", "3"]
    for name in ("icgan",) if tiny else ("icgan", "maskgit", "eldm-32", "eldm"):
        yield _throughput(f"views: {name}", ["views", "--generators", name, *scale], device)
    if not tiny:
        few = ["--rounds", "2", "--largest-batch", "32"]
        yield _throughput("views: unclip", ["views", "--generators", "unclip", *few], device, limit=240.0, least=60.0)


def _throughput(name: str, words: Sequence[str], device: str, *, limit: float = 60.0, least: float = 15.0) -> Check:
    every = ("benchmarks/throughput", *words, "--device", device, "--lines")
    return Check(name=name, words=every, limit=limit, least=least if device == "cuda" else 0.0)
