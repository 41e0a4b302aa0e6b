"""Patterns of file names with {id} and {group}: which files of a folder match, and what the placeholders stand for.

What a pattern's matches are used for is in files.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from r2seg.data.images import IMAGE_SUFFIXES, split_suffix

_DICOM = (".dcm", ".ima")


@dataclass(frozen=True)
class Match:
    """A file or folder that a pattern describes.

    Attributes:
        path: The file, or the folder of a DICOM series.
        id: What {id} stands for.
        group: What {group} stands for, or None if the pattern does not have it.
    """

    path: Path
    id: str
    group: str | None


@dataclass(frozen=True)
class Pattern:
    """A path relative to the root, with {id} and {group}; ``*`` is any part of a name, ``**/`` any folders.

    Each placeholder stands for at least one character of one folder's or file's name. ``.*`` at the end stands for any suffix of an
    image. {group} takes as few characters as possible, {id} as many as possible. A placeholder that occurs twice stands for
    the same text.
    """

    text: str

    @property
    def num_literal(self) -> int:
        """Characters that are not placeholders: of two patterns that match a file, the one with more says what the file is."""
        return len(re.sub(r"\{id\}|\{group\}|\*", "", self.text))

    def regex(self, flags: int = 0) -> re.Pattern[str]:
        """The regular expression of a path with forward slashes."""
        text = self.text
        tail = ""
        if text.endswith(".*"):
            suffixes = sorted((*IMAGE_SUFFIXES, *_DICOM), key=len, reverse=True)
            text, tail = text[:-2], f"(?i:{'|'.join(map(re.escape, suffixes))})"
        seen: set[str] = set()
        parts = []
        for token in re.split(r"(\{id\}|\{group\}|\*\*/|\*)", text):
            if token in ("{id}", "{group}"):
                name = token[1:-1]
                amount = "+?" if name == "group" else "+"
                parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]{amount})")
                seen.add(name)
            else:
                parts.append({"**/": "(?:[^/]+/)*", "*": "[^/]*"}.get(token, re.escape(token)))
        return re.compile("".join(parts) + tail, flags)

    def matches(self, root: Path, paths: Iterable[str]) -> Iterator[Match]:
        """The paths, relative to the root, that match."""
        regex = self.regex()
        for path in paths:
            if match := regex.fullmatch(path):
                found = match.groupdict()
                yield Match(root / path, found["id"], found.get("group"))

    def place(self, case_id: str, group: str | None) -> str:
        """The path that is expected for a case, relative to the root."""
        return self.text.replace("{id}", case_id).replace("{group}", group or "{group}")


def paths_below(root: Path) -> list[str]:
    """Images and DICOM files below a folder, and the folders that may be a DICOM series, relative, with forward slashes.

    What is hidden is left out; linked folders are searched, a link upwards once.
    """
    found: list[str] = []

    def search(place: Path, above: frozenset[Path], prefix: str) -> bool:
        with os.scandir(place) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        dicom = False
        for entry in listed:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                path = Path(entry.path)
                target = path.resolve()
                if target not in above and search(path, above | {target}, f"{prefix}{entry.name}/"):
                    found.append(f"{prefix}{entry.name}")
                continue
            is_dicom = entry.name.lower().endswith(_DICOM)
            # Slices come without a suffix too: IM000001, or named by their UID.
            dicom = dicom or is_dicom or re.fullmatch(r"[\w-]+|[\d.]+", entry.name) is not None
            if is_dicom or split_suffix(entry.name)[1]:
                found.append(f"{prefix}{entry.name}")
        return dicom

    search(root, frozenset({root.resolve()}), "")
    return sorted(found)
