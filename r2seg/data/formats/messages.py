"""Warnings of the libraries that read files, with the name of the file in front.

nibabel, tifffile and pydicom log, Pillow, pydicom and numpy use Python's warnings, and ITK's MetaImage reader writes to the process's standard error. None
of them says which of a thousand files is meant.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LOGGERS = ("nibabel.global", "tifffile", "pydicom", "highdicom")
_current = threading.local()
_one_at_a_time = threading.Lock()


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Within it, what libraries warn of in this thread names the file."""
    _install()
    outer = getattr(_current, "path", None)
    _current.path = path
    try:
        yield
    finally:
        _current.path = outer


def _install() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_with_name)  # once, however often it is called
    show = warnings.showwarning
    if getattr(show, "names_files", False):  # else it is new, or somebody has put another in its place
        return

    def show_with_name(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **more: Any) -> None:
        path = getattr(_current, "path", None)
        if path is None:
            show(message, category, filename, lineno, *rest, **more)
        else:
            say_once(path, str(message))

    show_with_name.names_files = True  # type: ignore[attr-defined]
    warnings.showwarning = show_with_name
    # The second file with the same fault is named, too. Appended: filters that a user has set come first.
    warnings.filterwarnings("always", module=r"(nibabel|tifffile|PIL|SimpleITK|pydicom|highdicom)(\.|$)", append=True)


def _with_name(record: logging.LogRecord) -> bool:
    """A filter that logs a library's record with the file's name instead."""
    path = getattr(_current, "path", None)
    if path is None:
        return True
    say_once(path, record.getMessage(), record.levelno)
    return False


def say_once(path: Path, text: str, level: int = logging.WARNING) -> None:
    """Logs a warning with the file's name: once, although header and pixels are read one after the other."""
    said: tuple[Path, set[str]] | None = getattr(_current, "said", None)
    if said is None or said[0] != path:
        said = _current.said = (path, set())
    if text not in said[1]:
        said[1].add(text)
        logger.log(level, "%s: %s", path, text)


@contextmanager
def standard_error_of(path: Path) -> Iterator[list[str]]:
    """Collects what C++ code writes to standard error; afterwards the list holds its lines.

    If no error is raised, they are logged with the file's name. For short calls: one thread at a time.
    """
    lines: list[str] = []
    with _one_at_a_time:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error
            yield lines
            return
        with tempfile.TemporaryFile() as collected:
            os.dup2(collected.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                os.close(kept)
                collected.seek(0)
                text = collected.read().decode("utf-8", "replace")
                lines += [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        say_once(path, line)
