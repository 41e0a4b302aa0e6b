"""Layouts of data sets, one module each: how a data set's files are named and paired into cases.

A new layout is a module with two functions, one that finds cases and one that recognises the folder, its row in ``LAYOUTS``, and
its name in config/schema/. What the layouts share is in tree.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2seg.data.cases import Case, as_dictionary
from r2seg.data.held_out import with_held_out
from r2seg.data.layouts.chase_db1 import CHILD, chase_db1_cases, is_chase_db1
from r2seg.data.layouts.drive import drive_cases, is_drive
from r2seg.data.layouts.files import files_cases, is_files
from r2seg.data.layouts.folder import folder_cases, is_folder
from r2seg.data.layouts.hrf import hrf_cases, is_hrf
from r2seg.data.layouts.isic import is_isic, isic_cases
from r2seg.data.layouts.kaggle_lung import PATIENT, is_kaggle_lung, kaggle_lung_cases
from r2seg.data.layouts.lctsc import is_lctsc, lctsc_cases
from r2seg.data.layouts.msd import is_msd, msd_cases
from r2seg.data.layouts.nnunet import is_nnunet, nnunet_cases
from r2seg.data.layouts.stare import is_stare, stare_cases
from r2seg.data.layouts.tree import LayoutError, located
from r2seg.data.layouts.voc import CLASSES, is_voc, voc_cases
from r2seg.errors import UserError, entry_of

if TYPE_CHECKING:
    from r2seg.config import Data

__all__ = ["LAYOUTS", "Layout", "LayoutError", "find_cases", "list_cases", "recognised_layout"]


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are named, and what is known about it.

    Attributes:
        find: The cases below ``data.root``.
        recognise: Whether a folder looks like the data set's own; cheap, by names only.
        about: What it is, in one line.
        labels: The label values that the data set documents, or None if it does not fix them.
        ignore_label: The value of pixels that its makers left undecided, if there is one.
        kind: "ct", "mr", "fundus", "dermoscopy", or None if it can be anything.
        group: Regular expression whose first group, found in the case id, is the patient; None if each case is a patient of its own,
            or if the names do not tell.
    """

    find: Callable[[Data], list[Case]]
    recognise: Callable[[Path], bool]
    about: str
    labels: Mapping[str, int] | None = None
    ignore_label: int | None = None
    kind: str | None = None
    group: str | None = None


_VESSEL = {"vessel": 255}

# In the order in which a folder is compared with them: the general ones come last.
LAYOUTS: dict[str, Layout] = {
    "drive": Layout(drive_cases, is_drive, "DRIVE: retinal vessels, official test set", _VESSEL, kind="fundus"),
    "stare": Layout(stare_cases, is_stare, "STARE: retinal vessels, two observers", _VESSEL, kind="fundus"),
    "chase_db1": Layout(
        chase_db1_cases,
        is_chase_db1,
        "CHASE_DB1: retinal vessels of both eyes of children, two observers",
        _VESSEL,
        kind="fundus",
        group=CHILD,
    ),
    "hrf": Layout(hrf_cases, is_hrf, "HRF: retinal vessels at high resolution", _VESSEL, kind="fundus"),
    "isic": Layout(isic_cases, is_isic, "ISIC 2016, 2017 or 2018: skin lesions", {"lesion": 255}, kind="dermoscopy"),
    "kaggle_lung": Layout(
        kaggle_lung_cases,
        is_kaggle_lung,
        "Kaggle's Finding Lungs in CT Data: slices or volumes",
        {"lung": 255},
        kind="ct",
        group=PATIENT,
    ),
    "lctsc": Layout(lctsc_cases, is_lctsc, "LCTSC 2017: organs of the chest, DICOM of TCIA or NIfTI", kind="ct"),
    "msd": Layout(msd_cases, is_msd, "a task of the Medical Segmentation Decathlon"),
    "nnunet": Layout(nnunet_cases, is_nnunet, "nnU-Net's raw data, one file per channel"),
    "voc": Layout(voc_cases, is_voc, "Pascal VOC 2012", CLASSES, ignore_label=255),
    "folder": Layout(folder_cases, is_folder, "images/NAME.* with labels/NAME.* and, for fields of view, masks/NAME.*"),
    "files": Layout(files_cases, is_files, "any names: patterns or a table in data.files"),
}


def recognised_layout(root: Path) -> str | None:
    """The name of the layout that a folder looks like, by names only; None if it looks like none."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognise(root)), None)


def find_cases(data: Data) -> list[Case]:
    """The labelled cases of a data set, sorted by id, and after them those of another one that ``data.split.test`` names.

    ``data.root`` is the data set's folder, or a folder above it that holds no second one; which folder was taken is logged.

    Raises:
        UserError: The layout is unknown.
        LayoutError: Files or folders are missing, doubled or named otherwise: everything at once, one line each, with the remedy.
    """
    layout = entry_of(LAYOUTS, data.layout, "data.layout")
    root = located(data.root, layout.recognise, data.layout)
    try:
        cases = layout.find(data.model_copy(update={"root": root, "group": data.group or layout.group}))
    except LayoutError as error:
        if layout.find is files_cases or layout.recognise(root) or (hint := _hint(root, data.layout)) is None:
            raise
        raise error.with_hint(hint) from None
    return with_held_out(cases, data, find_cases)


def _hint(root: Path, layout: str) -> str | None:
    """What a root that does not look like its layout may be instead."""
    if found := recognised_layout(root):
        return f"; this looks like {LAYOUTS[found].about.partition(':')[0]}: set data.layout: {found}"
    if LAYOUTS[layout].recognise(root.parent):
        return f"; {root.parent} looks right: set data.root to it"
    return None


def list_cases(
    root: str | Path, layout: str = "folder", *, group: str | None = None, files: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The cases of a data set as the dictionaries that MONAI's ``Dataset``, ``CacheDataset`` and ``PersistentDataset`` take.

    Args:
        root: Folder of the data set.
        layout: One of ``LAYOUTS``.
        group: Regular expression whose first group, found in the case id, is the patient; default: the layout's.
        files: For the layout "files", the config's section ``data.files``.

    Returns:
        One dictionary per case, sorted by id: "image", "label", "mask" and "observers" hold files as text, "image" and "label" a
        list where there are several, "observers" always a list; "id", "group" and "split". What a case does not have is left out.

    Raises:
        UserError: An argument is wrong, or the files are; as `find_cases`.
    """
    from pydantic import ValidationError

    from r2seg.config import Data

    entry_of(LAYOUTS, layout, "layout")
    patterns = (files or {}).get("label")
    names = list(patterns) if isinstance(patterns, Mapping) else ["label"]
    labels = {name: value for value, name in enumerate(names, start=1)}  # only the names matter here
    section = {"root": str(root), "layout": layout, "group": group, "files": files, "labels": labels}
    try:
        data = Data.model_validate({key: value for key, value in section.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        ]
        raise UserError("\n".join(f"list_cases: {line.removeprefix(': ')}" for line in lines)) from None
    return [as_dictionary(case) for case in find_cases(data)]
