"""Evaluation tasks by name. Their modules are imported when a task is run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from genviews.suggestions import suggest


@dataclass(frozen=True)
class Task:
    """Options and function of a task.

    Attributes:
        module: module in `genviews.evaluation`.
        options_name: name of its options dataclass in `genviews.evaluation.options`.
    """

    module: str
    options_name: str

    def options(self) -> type[Any]:
        """Return the options dataclass."""
        return getattr(import_module("genviews.evaluation.options"), self.options_name)

    def run(self, options: Any) -> None:
        """Run the task: measure, append the results, print a table."""
        import_module(f"genviews.evaluation.{self.module}").run(options)


TASKS: dict[str, Task] = {
    "classification": Task("classification", "ClassificationOptions"),
    "retrieval": Task("retrieval", "RetrievalOptions"),
    "copy-detection": Task("copy_detection", "CopyDetectionOptions"),
    "video": Task("video", "VideoOptions"),
    "slides": Task("slides", "SlidesOptions"),
    "segmentation": Task("segmentation", "SegmentationOptions"),
}


def find_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        ValueError: there is no such task; the message suggests similar names.
    """
    if name not in TASKS:
        raise ValueError(f"expected a task, got {name!r}; {suggest(name, TASKS, otherwise=', '.join(TASKS))}")
    return TASKS[name]
