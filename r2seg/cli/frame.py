"""What all commands share: messages, exit statuses, the device, and the layout of their help."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from r2seg.errors import UserError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; auto takes a GPU where there is one.")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all cores.")]


def parse_series(given: Sequence[str] | None) -> tuple[int | str, ...]:
    """DICOM series as they were typed: numbers, or UIDs."""
    return tuple(int(one) if one.isdecimal() else one for one in given or ())


def open_console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def say(text: str, *, error: bool = False) -> None:
    open_console(error).print(text, markup=False, soft_wrap=True)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command that ends a user's mistake with one line and exit status 2, and an interruption without a traceback."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        # Read when torch is loaded. GNU OpenMP's threads spin while they wait for one another, which wastes cores that other programs
        # need: with two busy programs on two cores a training step took 5.4 s, with this 0.65 s; on an idle machine it takes
        # 0.18 s either way (R2U-Net, 8 windows of 96x96, torch 2.15).
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # A scheduler's SIGTERM ends a run as Ctrl-C does: the last checkpoint is whole and progress bars are removed.
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the parent ignores it, as nohup would
            signal.signal(signal.SIGINT, _interrupt)
        # A file name that the terminal's encoding cannot hold is printed with \\xNN and ends nothing.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            function(*args, **kwargs)
        except UserError as error:
            for line in str(error).splitlines():
                say(f"error: {line}", error=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("stopped", error=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader, such as head, has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        finally:
            _interrupt_in(0)

    return run


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, but not in the middle of an import, which may swallow it or fail in another way: then later."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib") and _interrupt_in(0.05):
            return
        frame = frame.f_back
    _interrupt_in(10)  # once more if it was swallowed, as in an object's finalizer
    raise KeyboardInterrupt


def _interrupt_in(seconds: float) -> bool:
    """Sets the timer of the next `_interrupt`, or stops it with 0; whether the system has such a timer."""
    if not hasattr(signal, "setitimer"):
        return False
    if seconds:
        signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return True


def start(device: str, threads: int | None) -> torch.device:
    """Sets threads, resolves and announces the device."""
    import logging

    import torch

    from r2seg.devices import describe_device, resolve_device, why_no_cuda

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("r2seg").setLevel(logging.INFO)
    if threads is not None:
        torch.set_num_threads(threads)
    resolved = resolve_device(device)
    if device == "auto" and resolved.type == "cpu" and (reason := why_no_cuda()):
        say(f"warning: {reason}", error=True)
    say(f"device {describe_device(resolved)}")
    return resolved


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A live bar of the cases that are done, if there is a terminal; what it gives is called with cases done and of all."""
    console = open_console()
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class GroupedHelp(TyperCommand):
    """A command whose help shows options under the headings they are declared with (``rich_help_panel``)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                positional = parameter.param_type_name == "argument"
                heading = getattr(parameter, "rich_help_panel", None) or ("Arguments" if positional else "Options")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
