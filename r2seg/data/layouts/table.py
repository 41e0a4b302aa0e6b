"""A table of cases for the layout files: a CSV with one row per case, as a spreadsheet saves it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r2seg.data.cases import Case
from r2seg.data.images import split_suffix
from r2seg.data.layouts.tree import Tree
from r2seg.errors import closest, counted, some

COLUMNS = ("id", "image", "label", "mask", "observers", "group", "split")
_PARTS = {
    "": None,
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: its place for messages, and the columns that are not empty."""

    place: str
    cells: Mapping[str, str]


def table_cases(tree: Tree, table: Path, labels: Sequence[str]) -> list[Case]:
    """The cases of a table with the columns id, image, label, mask, observers, group and split; image and label are needed.

    Paths are relative to ``data.root``. Several files stand in one cell with ; between them, or in columns image_1, image_2 or
    observers_1, …; overlapping labels in columns label_NAME, one for each label of the config. Without an id the case has the
    image's path without suffix. The separator may be a comma, a semicolon or a tab.

    Args:
        tree: Collects the mistakes; its root is what paths are relative to.
        table: The CSV file, relative to the root.
        labels: Names of the config's labels, in order.
    """
    path = tree.root / table
    rows = _rows(tree, path)
    if not rows:
        return []
    columns = rows[0].cells.keys()
    by_label = [f"label_{name}" for name in labels]
    single = "label" in columns or not any(name in columns for name in by_label)
    needed = ["label"] if single else by_label
    numbered = re.compile(r"(image|observers)_\d+")
    known = {*COLUMNS, *needed, *(name for name in columns if numbered.fullmatch(name))}
    has_image = any(name == "image" or re.fullmatch(r"image_\d+", name) for name in columns)
    missing = [*([] if has_image else ["image"]), *(name for name in needed if name not in columns)]
    others = [name for name in columns if name not in known]
    for name in missing:
        close = closest(name, others)
        remedy = f"rename the column {close[0]}" if close else f"add it; there are {some(list(columns), 10)}"
        tree.wrong("missing column", f"{path}:1: has no column {name}: {remedy}")
    if others:
        tree.warn(f"{path}: {counted(len(others), 'column')} not used: {some(others)}")
    if missing:
        return []
    if any(row.cells.get("group") for row in rows):
        for row in rows:
            if not row.cells.get("group"):
                tree.wrong("missing group", f"{row.place}: has no group, and other rows have one: fill it in")
    cases = [case for row in rows if (case := _case_of(tree, row, needed)) is not None]
    _refuse_shared_files(tree, path, cases)
    return cases


def _rows(tree: Tree, path: Path) -> list[Row]:
    """The rows with every column of the header, column names in lower case but for what follows label_."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        tree.wrong("table", f"{path}: is not a text in UTF-8: save it as CSV UTF-8")
        return []
    except OSError as error:
        reason = (
            "there is no such table" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        tree.wrong("table", f"{path}: {reason}; data.files.table is relative to data.root")
        return []
    lines = text.splitlines()
    declared = re.fullmatch(r"sep=(.)", lines[0].strip(), re.IGNORECASE) if lines else None  # Excel's own first line
    first = 1 if declared else 0
    if not any(line.strip(" ,;\t") for line in lines[first + 1 :]):
        tree.wrong("table", f"{path}: holds no row below the names of the columns: add one row per case")
        return []
    delimiter = declared[1] if declared else max(",;\t", key=lines[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        records = [(reader.line_num, values) for values in reader][first:]
    except csv.Error as error:
        tree.wrong("table", f"{path}:{reader.line_num}: is not a row of a CSV ({error}): save the table as CSV UTF-8")
        return []
    header = [_column(name) for name in records[0][1]]
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        tree.wrong("doubled column", f"{path}:{first + 1}: has the column {name} twice: rename one")
    rows = []
    for line, values in records[1:]:
        if not any(value.strip() for value in values):
            continue
        if any(value.strip() for value in values[len(header) :]):
            tree.wrong(
                "long row",
                f"{path}:{line}: has {len(values)} cells and the table {counted(len(header), 'column')}: "
                f"quote cells that hold {delimiter!r}",
            )
            continue
        cells = dict(zip(header, [*values, *[""] * len(header)], strict=False))
        rows.append(Row(f"{path}:{line}", {name: value.strip() for name, value in cells.items() if name}))
    return rows


def _column(name: str) -> str:
    name = name.strip()
    return f"label_{name[6:]}" if name.lower().startswith("label_") else name.lower()


def _case_of(tree: Tree, row: Row, labels: Sequence[str]) -> Case | None:
    """The case of a row, or None where something is wrong with it."""

    def files(*columns: str, required: bool = True) -> list[Path]:
        given = [one.strip() for name in columns for one in row.cells.get(name, "").split(";") if one.strip()]
        if required and not given:
            wrong.append(("missing cell", f"{row.place}: has no {columns[0]}: fill it in, or remove the row"))
        paths = [tree.root / one.replace("\\", "/") for one in given]
        for path in paths:
            if not path.exists():
                text = f"{row.place}: {path} does not exist: correct the {columns[0]}, which is relative to data.root"
                wrong.append(("missing file", text))
        return paths

    def numbered(name: str) -> list[str]:
        found = [column for column in row.cells if re.fullmatch(rf"{name}_\d+", column)]
        return [name, *sorted(found, key=lambda column: int(column.rpartition("_")[2]))]

    wrong: list[tuple[str, str]] = []
    images = files(*numbered("image"))
    references = [files(column) for column in labels]
    masks = files("mask", required=False)
    observers = files(*numbered("observers"), required=False)
    for column, found in [*zip(labels, references, strict=True), ("mask", masks)]:
        if len(found) > 1:
            wrong.append(("several files", f"{row.place}: has {len(found)} files as {column}: give one"))
    split = row.cells.get("split", "").lower()
    if split not in _PARTS:
        wrong.append(("split", f"{row.place}: its split is {split!r}: give train, validation or test, or nothing"))
    for problem in wrong:
        tree.wrong(*problem)
    if wrong:
        return None
    case_id = row.cells.get("id") or _default_id(images[0], tree.root)
    if Path(case_id).is_absolute() or ".." in Path(case_id).parts or "\\" in case_id:
        tree.wrong(
            "id", f"{row.place}: its id {case_id!r} is not the name of an output file: use letters, digits, - and _"
        )
        return None
    group = row.cells.get("group") or tree.group_of(case_id)
    if group is None:
        return None
    return Case(
        id=case_id,
        images=tuple(images),
        labels=tuple(found[0] for found in references),
        mask=masks[0] if masks else None,
        observers=tuple(observers),
        group=group,
        split=_PARTS[split],
    )


def _default_id(image: Path, root: Path) -> str:
    stem = image.parent / split_suffix(image)[0]
    return stem.relative_to(root).as_posix() if stem.is_relative_to(root) else stem.name


def _refuse_shared_files(tree: Tree, path: Path, cases: Sequence[Case]) -> None:
    """A file that is the image or label of two cases is a slip of the spreadsheet; so is an image that is its own label."""
    used: dict[Path, str] = {}
    for case in cases:
        for file in (*case.images, *case.labels):
            other = used.setdefault(file, case.id)
            if other != case.id:
                tree.wrong("shared file", f"{path}: {file} belongs to the cases {other} and {case.id}: correct one row")
        for file in set(case.images).intersection(case.labels):
            tree.wrong("shared file", f"{path}: {file} is image and label of the case {case.id}: correct the row")
