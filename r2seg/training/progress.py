"""What a person sees while a training runs: a live bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from r2seg.inference.progress import Bar


class TrainingProgress:
    """Receives everything that happens and shows nothing: the base class of those that show it."""

    def message(self, text: str) -> None:
        """A line of text."""

    def reading_labels(self, done: int, total: int) -> None:
        """Label maps read so far, for a stratified split."""

    def preparing(self, done: int, total: int) -> None:
        """Cases preprocessed so far."""

    def training(self, epoch: int, max_epochs: int, step: int, steps: int, loss: float) -> None:
        """A step is done; ``loss`` is the epoch's mean so far."""

    def validating(self, done: int, total: int) -> None:
        """Cases validated so far."""

    def epoch(self, row: Mapping[str, Any], max_epochs: int, is_best: bool) -> None:
        """An epoch is done; ``row`` is that of metrics.csv."""

    def close(self) -> None:
        """Ends the display."""


def epoch_line(row: Mapping[str, Any], max_epochs: int, is_best: bool, seconds_left: float | None) -> str:
    """One line about an epoch: its loss, scores, duration and the time left."""
    parts = [f"epoch {row['epoch']:>{len(str(max_epochs))}}/{max_epochs}", f"loss {row['loss']:.4f}"]
    if row.get("validation_dice") is not None:
        parts.append(
            f"validation Dice {row['validation_dice']:.4f} IoU {row['validation_iou']:.4f}{' (best)' if is_best else ''}"
        )
    parts.append(f"{row['seconds']:.1f} s")
    if seconds_left is not None:
        parts.append(f"{clock(seconds_left)} left")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _SecondsLeft:
    """Estimates the time left from the mean duration of the epochs of this session."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.epochs = 0

    def after_epoch(self, epoch: int, max_epochs: int) -> float:
        self.epochs += 1
        return (time.monotonic() - self.started) / self.epochs * (max_epochs - epoch)


class PlainProgress(TrainingProgress):
    """One line per epoch: for files, pipes and job logs."""

    shows_time_left = True

    def __init__(self, console: Console) -> None:
        self.console = console
        self.left = _SecondsLeft()

    def message(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def reading_labels(self, done: int, total: int) -> None:
        if done == total:
            self.message(f"{total} label maps read to stratify the split")

    def preparing(self, done: int, total: int) -> None:
        if done == total:
            self.message(f"{total} cases preprocessed")
            self.left = _SecondsLeft()  # preprocessing does not count

    def epoch(self, row: Mapping[str, Any], max_epochs: int, is_best: bool) -> None:
        left = self.left.after_epoch(row["epoch"], max_epochs)
        self.message(epoch_line(row, max_epochs, is_best, left if self.shows_time_left else None))


class LiveProgress(PlainProgress):
    """A live bar below the lines of finished epochs."""

    shows_time_left = False  # the bar shows it; the lines then fit 80 columns

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=None, note="")
        self.best: float | None = None
        self.bar.start()

    def _show(self, what: str, done: int, total: int, note: str = "") -> None:
        self.bar.update(self.task, description=what, completed=done, total=total, note=note)

    def reading_labels(self, done: int, total: int) -> None:
        super().reading_labels(done, total)
        self._show("reading labels", done, total, "cases")

    def preparing(self, done: int, total: int) -> None:
        super().preparing(done, total)
        self._show("preprocessing", done, total, "cases")

    def training(self, epoch: int, max_epochs: int, step: int, steps: int, loss: float) -> None:
        best = f"  best Dice {self.best:.4f}" if self.best is not None else ""
        done = epoch - 1 + step / steps
        spent = time.monotonic() - self.left.started
        epochs_here = self.left.epochs + step / steps
        left = f"  {clock(spent / epochs_here * (max_epochs - done))} left" if epochs_here > 0 else ""
        self._show(f"epoch {epoch}/{max_epochs}", step, steps, f"loss {loss:.4f}{best}{left}")

    def validating(self, done: int, total: int) -> None:
        self._show("validating", done, total, "cases")

    def epoch(self, row: Mapping[str, Any], max_epochs: int, is_best: bool) -> None:
        if is_best:
            self.best = row["validation_dice"]
        super().epoch(row, max_epochs, is_best)

    def close(self) -> None:
        self.bar.stop()


def progress_for(console: Console) -> TrainingProgress:
    """A live bar on a terminal, plain lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
