"""Layouts of data sets, one module each: how a data set's files are named and paired into cases.

A new layout is a module with one function, config section -> cases, its row in ``LAYOUTS``, and its name in config/schema/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.layouts.folder import folder_cases, is_folder
from r2seg.data.layouts.voc import CLASSES, is_voc, voc_cases
from r2seg.errors import entry_of

if TYPE_CHECKING:
    from r2seg.config import Data


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


LAYOUTS: dict[str, Layout] = {
    "folder": Layout(folder_cases, is_folder, "images/NAME.* with labels/NAME.* and, for fields of view, masks/NAME.*"),
    "voc": Layout(voc_cases, is_voc, "Pascal VOC 2012 as unpacked", labels=CLASSES, ignore_label=255),
}


def find_cases(data: Data) -> list[Case]:
    """The labelled cases of a data set, sorted by id.

    Raises:
        UserError: The layout is unknown, folders are missing, a case has no label, or two files claim one case.
    """
    layout = entry_of(LAYOUTS, data.layout, "data.layout")
    return layout.find(data.model_copy(update={"group": data.group or layout.group}))
