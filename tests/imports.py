"""Imports of the package where some other package cannot be found, in the tests' own process: a new one takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_anew(*, without: tuple[str, ...]) -> Iterator[None]:
    """Inside, r2seg is imported once more, and whatever imports one of these names fails."""
    roots = {"r2seg", *(name.partition(".")[0] for name in without)}

    def ours() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in roots]

    before = {name: sys.modules.pop(name) for name in ours()}
    sys.modules.update(dict.fromkeys(without))  # type: ignore[arg-type]  # None refuses an import
    try:
        yield
    finally:
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)
