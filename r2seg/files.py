"""Files that appear whole or not at all: written beside their place, then renamed. A killed process leaves no half file."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r2seg.errors import UserError

if sys.platform != "win32":
    import fcntl

_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 7 * 24 * 3600


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, whose files move beside ``path`` once all are on the disk; it is removed in any case.

    For a format of two files, such as a header and its data, the named file moves last: nobody reads it before both are there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_behind(path)
    folder = Path(
        tempfile.mkdtemp(prefix=f"{_prefix(path)}{_host()}-{os.getpid()}-", suffix=_TEMPORARY, dir=path.parent)
    )
    lock = _lock(folder)
    try:
        yield folder
        files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in files:
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
        for file in files:
            os.replace(file, path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _prefix(path: Path) -> str:
    return f".{path.name[:50]}."


def _host() -> str:
    """The machine, as a part of a file's name."""
    return f"{zlib.crc32(platform.node().encode('utf-8', 'surrogateescape')):08x}"


def _lock(folder: Path) -> int | None:
    """A lock on a folder as a file descriptor, which the system releases when the process ends; None if another has it."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left_behind(path: Path) -> None:
    """Removes the hidden folders that killed processes left when they were writing the same file.

    Those of this machine whose process is gone and whose lock is free; those of other machines or without a process in the name
    after a week.
    """
    prefix = _prefix(path)
    with suppress(OSError), os.scandir(path.parent) as entries:
        found = [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(prefix) and entry.name.endswith(_TEMPORARY) and entry.is_dir(follow_symlinks=False)
        ]
        for folder in found:
            middle = folder.name.removeprefix(prefix).removesuffix(_TEMPORARY)
            match = re.fullmatch(r"([0-9a-f]{8})-(\d+)-\w+", middle)
            if match and match[1] == _host():
                gone = int(match[2]) == os.getpid() or not _is_alive(int(match[2]))  # ours now are locked
            elif match or re.fullmatch(r"\w{8}", middle):
                gone = time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS
            else:
                continue  # not one of ours
            if gone and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def why_not_writable(folder: Path) -> str | None:
    """Why nothing can be written to an existing folder, found by trying; None if it can."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".writable.", suffix=_TEMPORARY, dir=folder))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def write_atomically(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """Calls ``write`` with an open file: ``path`` holds the old content or the new, never a part.

    Raises:
        UserError: The folder cannot be written or the disk is full; nothing is left beside.
    """
    try:
        with replacing(path) as folder, open(folder / path.name, "wb") as file:
            write(file)
    except Exception as error:
        # torch.save turns a full disk into an error of its own, with the true one behind it.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None:
            raise
        raise UserError(f"{path}: cannot be written: {cause.strerror or cause}") from error


def write_text(path: Path, text: str) -> None:
    """Text in UTF-8, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Keys and values of a JSON file that `write_json` wrote.

    Raises:
        UserError: The file is missing, damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}): the run is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys and values: the run is damaged")
    return content
