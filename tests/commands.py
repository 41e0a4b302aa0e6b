"""The commands as they are typed, but in the tests' own process: a new process spends seconds on importing torch and monai."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import r2seg.cli


def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a new process with these words would return, by way of the same entry point; a bug's exception comes through.

    Signals, the terminal, and lines of ``logging`` (which pytest catches) are not those of a process of its own.
    """
    name, *rest = map(str, words)
    entry = getattr(r2seg.cli, "main" if name == "r2seg" else f"{name.removeprefix('r2seg-')}_main")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    level = logging.getLogger("r2seg").level
    status: object = 0
    try:
        with (
            mock.patch.object(sys, "argv", [name, *rest]),
            mock.patch.dict(os.environ, {"COLUMNS": "200"}),
            contextlib.chdir(cwd or "."),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            entry()
    except SystemExit as ended:
        status = ended.code
    finally:
        logging.getLogger("r2seg").setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert isinstance(status, int)
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess([name, *rest], status, *texts)
