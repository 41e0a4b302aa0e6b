"""Splits that somebody else drew, read from a file: which names are in which part. What the names stand for is in splits.py.

A JSON or YAML file holds ``{train: [...], validation: [...], test: [...]}`` (splits.json of a run) or a list of folds of that form
(nnU-Net's splits_final.json, with ``val`` for validation). A CSV has the columns ``id`` or ``group``, and ``part``.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2seg.config.yaml_text import NotYaml, parse_yaml
from r2seg.errors import UserError, nearest

# What the parts are called in files.
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class NamedParts:
    """Names of cases or groups by part, and where they were named.

    Attributes:
        origin: The config key or the file, as messages name it.
        parts: Part -> names; a part that is missing was not named.
        num_folds: Number of folds of the file; None if it has none.
    """

    origin: str
    parts: Mapping[str, tuple[str, ...]]
    num_folds: int | None = None


def read_split_file(path: Path, fold: int | None) -> NamedParts:
    """The parts that a file names.

    Args:
        path: A .json, .yaml, .yml or .csv file.
        fold: Which of the file's folds, counted from 0; None for the first, or where there are none.

    Raises:
        UserError: The file is missing, damaged or of another form, names one case twice, or does not have the fold.
    """
    origin = f"data.split.file {path}"
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{origin}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{origin}: this is not a text file") from None
    except OSError as error:
        raise UserError(f"{origin}: cannot be read: {error.strerror}") from None
    if path.suffix.lower() == ".csv":
        document: Any = _parts_of_table(text, origin)
    else:
        document = _parsed(text, path.suffix.lower(), origin)
    num_folds = None
    if isinstance(document, list):
        num_folds, index = len(document), fold or 0
        if not num_folds:
            raise UserError(f"{origin}: this is an empty list of folds")
        if index >= num_folds:
            raise UserError(
                f"{origin}: it has {num_folds} folds, and data.split.fold is {index}: give 0 to {num_folds - 1}"
            )
        document = document[index]
    elif fold is not None:
        raise UserError(f"{origin}: it has no folds, and data.split.fold is {fold}: leave data.split.fold out")
    return NamedParts(origin, _parts(document, origin), num_folds)


def _parsed(text: str, suffix: str, origin: str) -> Any:
    try:
        if suffix == ".json":
            return json.loads(text)
        document, _, problems = parse_yaml(text)
    except (json.JSONDecodeError, RecursionError, NotYaml) as error:
        kind = "JSON" if suffix == ".json" else "YAML"
        raise UserError(f"{origin}: this is not {kind}: {' '.join(str(error).split())}") from None
    if problems:
        key, reason = problems[0]
        raise UserError(f"{origin}: {'.'.join(key)}: {reason}")
    return document


def _parts(document: Any, origin: str) -> dict[str, tuple[str, ...]]:
    """The parts that a mapping names, under our names."""
    form = "a split is {train: [...], validation: [...], test: [...]}, or a list of such folds"
    if not isinstance(document, dict) or not document:
        raise UserError(f"{origin}: {form}")
    parts: dict[str, tuple[str, ...]] = {}
    for key, names in document.items():
        part = _part(str(key), origin)
        if part in parts:
            raise UserError(f"{origin}: names the part {part} twice")
        if not isinstance(names, list):
            raise UserError(f"{origin}: {key} is not a list; {form}")
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise UserError(f"{origin}: {key} holds {wrong[0]!r}, which is not a text: put it in quotes")
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"{origin}: {key} names {twice[0]!r} twice: remove one")
        parts[part] = tuple(names)
    return parts


def _parts_of_table(text: str, origin: str) -> dict[str, list[str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else ""
    rows = list(csv.reader(lines, delimiter=";" if ";" in first and "," not in first else ","))
    header = [name.strip().lower() for name in rows[0]] if rows else []
    name_columns = [name for name in ("id", "group") if name in header]
    if len(name_columns) != 1 or "part" not in header:
        raise UserError(f"{origin}: its first line is {first!r}; expected the columns id,part or group,part")
    name_column, part_column = header.index(name_columns[0]), header.index("part")
    parts: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(name_column, part_column) or not row[name_column].strip():
            raise UserError(f"{origin}: row {number} is {','.join(row)!r}; expected its {name_columns[0]} and its part")
        parts.setdefault(_part(row[part_column].strip(), origin), []).append(row[name_column].strip())
    if not parts:
        raise UserError(f"{origin}: it has a header and no row")
    return parts


def _part(name: str, origin: str) -> str:
    part = PART_NAMES.get(name.lower())
    if part is None:
        raise UserError(f"{origin}: {name!r} is not a part; {nearest(name, ('train', 'validation', 'test'))}")
    return part
