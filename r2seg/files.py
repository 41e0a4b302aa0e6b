"""Files that appear whole or not at all: written beside their place, then renamed. A killed process leaves no half file."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r2seg.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, whose files move beside ``path`` once all are on the disk; it is removed in any case.

    For a format of two files, such as a header and its data, the named file moves last: nobody reads it before both are there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
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
