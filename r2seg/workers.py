"""A few cases at the same time, their results in the order of the cases."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Called with the number of cases done and of all cases."""


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, progress: Progress | None = None
) -> Iterator[Result]:
    """``function(item)`` of every item, in threads: reading and counting both release Python's lock.

    Args:
        workers: Items at the same time; None for one per core, at most 4.
        progress: Called after each item.
    """
    for done, result in enumerate(_results(function, items, workers or min(4, os.cpu_count() or 1)), start=1):
        yield result
        if progress is not None:
            progress(done, len(items))


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers == 1 or len(items) == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:  # results that nobody has taken yet need memory too
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
