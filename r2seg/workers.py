"""A few cases at the same time, their results in the order of the cases; and how many cores this process may use."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
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
        workers: Items at the same time; None for one per core that this process may use, at most 4.
        progress: Called after each item.
    """
    for done, result in enumerate(_results(function, items, workers or min(4, num_cores())), start=1):
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


def num_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of the machine, its affinity (taskset, a batch system) and its cgroup's quota (containers).

    Args:
        root: Where /proc and /sys are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    try:
        # One line for each hierarchy: "0::/path" of cgroup 2, "4:cpu,cpuacct:/path" of cgroup 1.
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:  # not Linux
        lines = []
    for number, controllers, path in lines:
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        folder = root / "sys/fs/cgroup" / ("" if number == "0" else "cpu")
        places = [folder / path.lstrip("/"), *(folder / path.lstrip("/")).parents]
        for place in (each for each in places if each.is_relative_to(folder)):
            quotas.append(_quota(place / "cpu.max") or _quota(place / "cpu.cfs_quota_us", place / "cpu.cfs_period_us"))
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas if quota)]))


def _quota(*files: Path) -> float | None:
    """Cores that a cgroup's files grant: quota and period in microseconds; None if they set no limit or are not there."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max 100000"
        return None
