"""What a person sees while cases are segmented: a bar on a terminal, and one line per case everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from r2seg.errors import counted, some
from r2seg.inference.batch import Job, Outcome
from r2seg.inference.segmenter import Found


class Bar(Progress):
    """A transient bar that leaves a few columns free: the terminal's ^C would wrap a full line and leave half a bar behind."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield _Narrower(self.make_tasks_table(self.tasks))


@dataclass(frozen=True)
class _Narrower:
    """Something drawn with a few columns fewer than there are."""

    inner: RenderableType
    free: int = 6

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inner, options.update(width=max(options.max_width - self.free, 10)))


def amount(found: Found) -> str:
    """How much of a label was found, as text: "12.5 mL", or "340 pixels" of pictures."""
    if found.millilitres is None:
        return counted(found.voxels, "pixel")
    return f"{found.millilitres:.1f} mL" if found.millilitres >= 10 else f"{found.millilitres:.3g} mL"


class InferenceProgress:
    """Lines of finished cases, and a bar over all cases if there is a terminal."""

    def __init__(self, console: Console, total: int, bar: Progress | None) -> None:
        self.console = console
        self.bar = bar
        self.task = bar.add_task("segmenting", total=total) if bar else TaskID(0)
        self.total = total
        self.done = 0
        self.started = time.monotonic()

    def share(self, job: Job, share: float) -> None:
        """A fraction of a case is done."""
        if self.bar:
            self.bar.update(self.task, description=job.images[0].name, completed=self.done + share)

    def outcome(self, outcome: Outcome) -> None:
        """A case is done, or failed."""
        self.done += 1
        seconds = time.monotonic() - self.started
        self.started = time.monotonic()
        name = outcome.job.images[0]
        if outcome.error:
            error = outcome.error if str(name) in outcome.error else f"{name}: {outcome.error}"
            text = f"FAILED {error}"
        else:
            amounts = some([f"{label} {amount(found)}" for label, found in outcome.found.items()], 8)
            text = f"{name} -> {outcome.job.output}  {amounts}  {seconds:.1f} s"
        self.console.print(f"[{self.done}/{self.total}] {text}", markup=False, soft_wrap=True)
        for warning in outcome.warnings:
            self.console.print(f"WARNING {name}: {warning}", markup=False, soft_wrap=True)
        if self.bar:
            self.bar.update(self.task, completed=self.done)


@contextmanager
def inference_progress(console: Console, total: int) -> Iterator[InferenceProgress]:
    """Progress whose bar is removed at the end."""
    if not console.is_terminal:
        yield InferenceProgress(console, total, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        yield InferenceProgress(console, total, bar)
