"""One process per run folder: a second one that would write into it is refused.

The lock is the operating system's, on a file in the folder: it ends with its process, however that ends. The file says who holds it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r2seg.errors import UserError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder, which is made if needed and removed again if nothing was put into it.

    Raises:
        UserError: Another process holds it, or the folder cannot be written.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(file)
        for place in new:
            with suppress(OSError):  # it holds something
                place.rmdir()


def _acquire(path: Path) -> int:
    """A descriptor of the lock file that this process has locked.

    Raises:
        UserError: Another process holds the lock.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            supported = _try_lock(file)
            holder = _read_holder(path)
            if supported is False or (supported is None and _lives(holder)):
                raise UserError(_refusal(path, holder))
            same = path.exists() and os.fstat(file).st_ino == path.stat().st_ino
            if same:  # else the process that held it has just removed it
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _try_lock(file: int) -> bool | None:
    """Whether the lock was free; None if the system has no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read_holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _lives(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock file names may still run; one on another machine may."""
    if not isinstance(holder.get("pid"), int):
        return False
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return holder["pid"] != os.getpid()


def _refusal(path: Path, holder: dict[str, Any]) -> str:
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown machine')}"
    return f"{path.parent} is in use: {who} is training in it; wait for it, or name another folder with -o RUN (lock: {path})"
