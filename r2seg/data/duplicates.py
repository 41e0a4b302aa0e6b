"""Identical images under two names: found by the content of their files, so that a split cannot put copies on both sides.

Which side they fall on is decided in splits.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from r2seg.data.cases import Case
from r2seg.data.formats.companions import companions

# Read from the beginning of a file, to tell most files of one size apart.
_SAMPLE = 1 << 16


def identical_images(cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """Ids of cases whose image files have the same content, one tuple for each set of copies, sorted.

    Only files of the same size are read, and only those whose beginning agrees are read to their end. An image that was encoded
    again is not recognized.
    """
    files: dict[str, list[Path]] = {}
    for case in cases:
        try:
            found = [file for path in case.images for file in _content(path)]
            if all(file.is_file() and file.stat().st_size for file in found):
                files[case.id] = found
        except OSError:  # reading the case will say so
            continue
    sets: list[list[str]] = [list(files)]
    steps: tuple[Callable[[Path], Hashable], ...] = (_size, _sample, _whole)
    for step in steps:
        sets = [same for ids in sets for same in _equal(ids, files, step)]
    return sorted(tuple(sorted(ids)) for ids in sets)


def _content(path: Path) -> tuple[Path, ...]:
    """The files that hold an image's voxels; a header that only names its data file would differ between copies."""
    others = companions(path)
    return (path, *others) if path.suffix.lower() == ".img" or not others else others


def _equal(ids: Iterable[str], files: dict[str, list[Path]], of: Callable[[Path], Hashable]) -> list[list[str]]:
    """The ids in sets of two or more whose files are equal in a property."""
    sets: dict[Hashable, list[str]] = {}
    for case_id in ids:
        sets.setdefault(tuple(of(file) for file in files[case_id]), []).append(case_id)
    return [same for same in sets.values() if len(same) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(_SAMPLE)).digest()


def _whole(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
