"""A folder as a data set: its layout, or the patterns or table that pair its files; its cases, patients and labels."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r2seg.config import Data
from r2seg.data.cases import Case, group_of
from r2seg.data.formats import split_suffix
from r2seg.data.formats.dicom_files import is_dicom_label, is_series_folder
from r2seg.data.layouts import LAYOUTS, LayoutError, find_cases
from r2seg.data.layouts.dataset_json import read_dataset_json
from r2seg.data.layouts.patterns import paths_below
from r2seg.data.layouts.tree import located
from r2seg.errors import UserError, counted, some
from r2seg.planning.groups import guess_groups
from r2seg.planning.inventory import FoundCase, take_inventory
from r2seg.planning.label_values import exclusive, find_labels, is_label_map

Progress = Callable[[int, int], None]
_PLACEHOLDER = {"label": 1}  # the cases do not depend on it


@dataclass(frozen=True)
class Dataset:
    """What a folder holds.

    Attributes:
        root: The data set's folder.
        layout: One of ``LAYOUTS``.
        patterns: ``data.files``, or None.
        table: Rows of a table of cases where patterns do not describe them, or None.
        group: ``data.group``, or None.
        kind: What the layout says of the images, or None.
        cases: The labelled cases.
        labels: ``data.labels``.
        ignore_label: ``data.ignore_label``.
        evidence: Section -> what told it, one line each; sections are "layout", "group" and "labels".
        doubts: What to check, one line each.
    """

    root: Path
    layout: str
    patterns: dict[str, Any] | None
    table: tuple[FoundCase, ...] | None
    group: str | None
    kind: str | None
    cases: tuple[Case, ...]
    labels: dict[str, Any]
    ignore_label: int | None
    evidence: dict[str, tuple[str, ...]]
    doubts: tuple[str, ...]

    @property
    def num_groups(self) -> int:
        return len({case.group or case.id for case in self.cases})

    @property
    def parts(self) -> frozenset[str]:
        """Parts of the split that the data set fixes."""
        return frozenset(case.split for case in self.cases if case.split)

    def table_text(self) -> str:
        """The table of cases as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ["id", "image", "label", "mask", "observers", "group", "split"]
        rows = [
            [
                each.id,
                ";".join(each.images),
                each.label,
                each.mask or "",
                ";".join(each.observers),
                each.group or "",
                each.part or "",
            ]
            for each in self.table or ()
        ]
        kept = [
            index
            for index, name in enumerate(names)
            if name in ("id", "image", "label") or any(row[index] for row in rows)
        ]
        writer.writerow([names[index] for index in kept])
        writer.writerows([row[index] for index in kept] for row in rows)
        return text.getvalue()


def find_dataset(folder: Path, on_case: Progress | None = None) -> Dataset:
    """What a folder holds.

    Args:
        folder: Any folder of images and label maps.
        on_case: Called while label maps are read, with the number read and of all.

    Raises:
        UserError: There is no such folder, no labelled case, or the files of a known data set are not whole.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the folder that holds images and label maps")
    folder = folder.resolve()
    with _warnings() as told:
        found = _of_layout(folder) or _of_names(folder)
    found = replace(found, doubts=(*found.doubts, *dict.fromkeys(told)))
    found = _with_groups(found)
    return _with_labels(found, on_case)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the layouts log while cases are found, as lines."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("r2seg.data")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def _data(root: Path, layout: str, **more: Any) -> Data:
    return Data.model_validate({"root": str(root), "layout": layout, "labels": _PLACEHOLDER, **more})


def _of_layout(folder: Path) -> Dataset | None:
    """The folder as a known data set or a plain images/ and labels/, or None."""
    roots = {name: located(folder, layout.recognise, name) for name, layout in LAYOUTS.items()}
    names = [name for name, root in roots.items() if LAYOUTS[name].recognise(root)]
    for name in names:
        root = roots[name]
        try:
            cases = find_cases(_data(root, name))
        except LayoutError as error:
            if error.cases or not _try_names(root):
                raise
            continue
        others = [other for other in names if other != name and other != "folder" and name != "folder"]
        also = f"; the names also look like {', '.join(others)}" if others else ""
        return Dataset(
            root=root,
            layout=name,
            patterns=None,
            table=None,
            group=None,
            kind=LAYOUTS[name].kind,
            cases=tuple(cases),
            labels={},
            ignore_label=None,
            evidence={"layout": (LAYOUTS[name].about,)},
            doubts=(f"taken for {name}{also}; set data.layout if it is another",) if others else (),
        )
    return None


def _try_names(root: Path) -> bool:
    """Whether the names of the files alone give cases."""
    try:
        return bool(_of_names(root).cases)
    except UserError:
        return False


def _of_names(folder: Path) -> Dataset:
    """The folder by the names of its files."""
    names = _names_below(folder)
    try:
        found = take_inventory(names, lambda name: is_label_map(folder / name))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    cases = _cases_of_patterns(folder, found.patterns) if found.patterns else None
    wanted = {(each.images, each.label, each.mask, each.observers) for each in found.cases}
    same = cases is not None and wanted == {_relative(case, folder) for case in cases}
    evidence = {"layout": found.evidence}
    base = Dataset(
        root=folder,
        layout="files",
        patterns=found.patterns if same else None,
        table=None if same else found.cases,
        group=None,
        kind=None,
        cases=tuple(cases) if same and cases else tuple(_as_case(each, folder) for each in found.cases),
        labels={},
        ignore_label=None,
        evidence=evidence,
        doubts=found.doubts,
    )
    return _with_word(base, found.label_word)


def _with_word(dataset: Dataset, word: str) -> Dataset:
    return replace(dataset, evidence={**dataset.evidence, "word": (word,)})


def _names_below(folder: Path) -> list[str]:
    """Images, folders of a DICOM series or label, and DICOM labels below a folder; not the files inside such folders."""
    paths = paths_below(folder)
    series = {name for name in paths if (folder / name).is_dir() and is_series_folder(folder / name)}
    # A patient's folder with a series below it and structures beside that is not itself an image.
    series -= {name for name in series if any(other.startswith(f"{name}/") for other in series)}
    kept = []
    for name in paths:
        path = folder / name
        if name.rpartition("/")[0] in series or (path.is_dir() and name not in series):
            continue
        if path.is_dir() or split_suffix(name)[1] or is_dicom_label(path):
            kept.append(name)
    return kept


def _cases_of_patterns(folder: Path, patterns: dict[str, Any]) -> list[Case] | None:
    """What the layout files finds with patterns; None if it refuses them."""
    try:
        return find_cases(_data(folder, "files", files=patterns))
    except (UserError, ValueError):
        return None


def _relative(case: Case, root: Path) -> tuple[Any, ...]:
    def name(path: Path | None) -> str | None:
        return None if path is None else path.relative_to(root).as_posix()

    return tuple(map(name, case.images)), name(case.reference), name(case.mask), tuple(map(name, case.observers))


def _as_case(found: FoundCase, root: Path) -> Case:
    return Case(
        id=found.id,
        images=tuple(root / name for name in found.images),
        labels=(root / found.label,),
        mask=root / found.mask if found.mask else None,
        observers=tuple(root / name for name in found.observers),
        group=found.group or found.id,
        split=found.part,
    )


def _with_groups(dataset: Dataset) -> Dataset:
    """The data set with its patients: the layout's, folders that stand for them, or a guess from the ids."""
    layout = LAYOUTS[dataset.layout]
    ids = [case.id for case in dataset.cases]
    groups = [case.group for case in dataset.cases]
    if layout.group is not None:
        patients = f"the first group of this pattern, found in a case's id: {counted(dataset.num_groups, 'patient')}"
        return replace(dataset, evidence={**dataset.evidence, "group": (patients,)})
    if any(group and group != case_id for group, case_id in zip(groups, ids, strict=True)):
        patients = f"{counted(dataset.num_groups, 'patient')}: their folders ({some(sorted(set(groups)), 3)})"
        return replace(dataset, evidence={**dataset.evidence, "group": (patients,)})
    if (
        layout.kind is not None
    ):  # a data set whose cases are known to be patients of their own, or whose names do not tell
        text = f"each of the {counted(len(ids), 'case')} is a patient of its own, as far as the names tell"
        return replace(dataset, evidence={**dataset.evidence, "group": (text,)})
    guess = guess_groups(ids)
    doubts = dataset.doubts if guess.sure else (*dataset.doubts, f"patients: {guess.evidence}")
    dataset = replace(dataset, evidence={**dataset.evidence, "group": (guess.evidence,)}, doubts=doubts)
    if guess.pattern is None:
        return dataset
    cases = tuple(replace(case, group=group_of(case.id, guess.pattern)) for case in dataset.cases)
    return replace(dataset, group=guess.pattern, cases=cases)


def _with_labels(dataset: Dataset, on_case: Progress | None) -> Dataset:
    layout = LAYOUTS[dataset.layout]
    known: dict[str, Any] | None = dict(layout.labels) if layout.labels else None
    ignored = layout.ignore_label
    if dataset.layout in ("msd", "nnunet") and (json := read_dataset_json(dataset.root)) is not None:
        known, doubt = exclusive(json.labels)
        ignored = json.ignore_label
        dataset = replace(dataset, doubts=(*dataset.doubts, *([doubt] if doubt else [])))
    (word,) = dataset.evidence.get("word", ("",))
    found = find_labels([case.reference for case in dataset.cases], known, ignored, word, on_case)
    evidence = {key: lines for key, lines in dataset.evidence.items() if key != "word"}
    return replace(
        dataset,
        labels=found.labels,
        ignore_label=found.ignore_label,
        evidence={**evidence, "labels": found.evidence},
        doubts=(*dataset.doubts, *found.doubts),
    )
