"""Load items in worker processes, in a given order, with errors of one line."""

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from genviews_core.images import UnreadableImage
from genviews_core.reader_processes import start_method

OnUnreadable = Callable[[str], object]
"""Called with an error message that names an unreadable image; if it returns, the image is skipped."""


def raise_error(line: str) -> None:
    """Raise ValueError with the message."""
    raise ValueError(line)


def load_items(
    items: Dataset, order: Iterable[Any], workers: int = 0, on_unreadable: OnUnreadable = raise_error
) -> Iterator[Any]:
    """Yield `items[key]` for each key of `order`, neither batched nor converted.

    Args:
        items: a data set; its `__getitem__` runs in the worker processes.
        order: indices, or other keys of `__getitem__`, such as lists of indices.
        workers: worker processes, forked on Linux; 0 loads in this process.
        on_unreadable: called with the message of each item that raised UnreadableImage, which is then skipped; raises
            by default.

    Raises:
        ValueError: an item raised it, with the same message; a worker process of DataLoader would add its traceback.
    """
    loader = DataLoader(
        _WithErrors(items),
        batch_size=None,
        sampler=order,  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_signals,
        multiprocessing_context=start_method(workers),
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    for item in loader:
        if not isinstance(item, _Error):
            yield item
        elif item.unreadable:
            on_unreadable(item.message)
        else:
            raise ValueError(item.message)


@dataclass(frozen=True)
class _Error:
    message: str
    unreadable: bool


class _WithErrors(Dataset):
    """Returns the ValueError of an item instead of raising it."""

    def __init__(self, items: Dataset):
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._items[key]
        except ValueError as error:
            return _Error(str(error), isinstance(error, UnreadableImage))


def _unchanged(item: object) -> object:
    return item


def _ignore_signals(worker: int) -> None:
    """Ignore signals, which schedulers send to all processes: workers end after the process that reads from them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
