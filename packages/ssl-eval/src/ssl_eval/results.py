"""Results: one JSON line per measured value, appended safely by several processes."""

import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from genviews_core.files import check_writable
from ssl_eval.append import append_line


@dataclass(frozen=True, kw_only=True)
class Result:
    """One measured value.

    Attributes:
        task: the evaluation: "linear", "knn".
        metric: "top1".
        value: percent for accuracies; finite.
        protocol: settings that must agree for values to be comparable, such as "k=20 T=0.07".
        backbone: hash of the weights, see `backbone_hash`.
        data: name of the data set.
        seed: seed of the backbone's training.
        machine: description of the machine, see `machine`.
        seconds: wall time of the measurement.
        recipe: how the backbone was trained; the name of the row in tables, shared by all seeds.
        left_out: number of skipped unreadable images (videos for DAVIS); written only if not 0.
    """

    task: str
    metric: str
    value: float
    protocol: str
    backbone: str
    data: str
    seed: int
    machine: str
    seconds: float
    recipe: str = ""
    left_out: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"expected a finite value of {self.task} {self.metric}, got {self.value}")

    def line(self) -> str:
        """Return the result as a line of JSON."""
        content = asdict(self)
        if not self.left_out:
            del content["left_out"]
        line = json.dumps(content, ensure_ascii=False, allow_nan=False)
        return line if _is_utf8(line) else json.dumps(content, allow_nan=False)

    @property
    def identity(self) -> tuple[str, str, str, str, str, int, str]:
        """Key of a measurement, which a newer result replaces.

        The recipe is part of it, as two recipes may result in the same weights.
        """
        return (self.task, self.metric, self.protocol, self.backbone, self.data, self.seed, self.recipe)


def data_name(test: str | Path) -> str:
    """Return a folder's data set name in results: "cifar10/test" for cifar10/test and for cifar10/test/images."""
    place = Path(test).resolve()
    place = place.parent if place.name == "images" else place
    return f"{place.parent.name}/{place.name}".strip("/")


def check_results(path: str | Path) -> None:
    """Check that results can be written, before measuring for hours.

    Raises:
        ValueError: nothing can be appended to this file.
    """
    check_writable(path)


def append_result(path: str | Path, result: Result) -> None:
    """Append one line and flush it to disk, with a lock against concurrent writers.

    An incomplete last line of an earlier crash is terminated first.

    Raises:
        ValueError: the line cannot be written; the file is unchanged.
    """
    append_line(path, result.line())


def append_results(path: str | Path, results: Sequence[Result], *, on_lost: Callable[[str], object] = print) -> None:
    """Append results; print those that cannot be written, so that a full disk does not lose them.

    Args:
        path: the results file.
        results: the results, one line each.
        on_lost: called with each line that cannot be written, before the error is raised.

    Raises:
        ValueError: the file cannot be written.
    """
    for place, result in enumerate(results):
        try:
            append_result(path, result)
        except ValueError as error:
            for lost in results[place:]:
                on_lost(lost.line())
            raise ValueError(f"{error}; {len(results) - place} results are printed as lines to append to it") from error


def read_results(path: str | Path) -> list[Result]:
    """Read the results of a file, the newest of each identity, in the order written; none if there is no file.

    A torn last line is ignored, a torn line before it (closed by a later append) is ignored with a warning.

    Raises:
        ValueError: a complete line is not a result, or the file cannot be read.
    """
    path = Path(path)
    newest: dict[tuple, Result] = {}
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise ValueError(f"cannot read the results in {path}: {error.strerror}; give a file of JSON lines") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError:
            if number < len(lines):
                warnings.warn(f"{path}, line {number} is broken off and ignored.", stacklevel=2)
            continue
        result = _parse(content, f"{path}, line {number}")
        newest.pop(result.identity, None)
        newest[result.identity] = result
    return list(newest.values())


def _is_utf8(text: str) -> bool:
    """Return whether text can be encoded; surrogates from non-UTF-8 paths cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_TYPES: dict[object, type | tuple[type, ...]] = {str: str, int: int, float: (int, float)}


def _parse(content: object, where: str) -> Result:
    """Return a result from decoded JSON."""
    names = {field.name for field in fields(Result)}
    needed = names - {"recipe", "left_out"}
    if not isinstance(content, dict) or not needed <= content.keys():
        raise ValueError(f"{where} is not a result: expected {', '.join(sorted(needed))}")
    if unknown := sorted(content.keys() - names):
        raise ValueError(f"{where} is not a result: unknown field {unknown[0]}")
    wanted = {field.name: _TYPES[field.type] for field in fields(Result)}
    if odd := [name for name in content if not isinstance(content[name], wanted[name])]:
        raise ValueError(f"{where} is not a result: {odd[0]} is {content[odd[0]]!r}")
    try:
        return Result(**content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def machine() -> str:
    """Describe this machine: processor, usable cores, GPU, torch."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.machine()} {cores} cores{accelerator}, torch {torch.__version__}"
