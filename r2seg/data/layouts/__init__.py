"""Layouts of data sets, one module each: how a data set's files are named and paired into cases.

A new layout is a module with one function, config section -> cases, its row in ``LAYOUTS``, and its name in config/schema/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from r2seg.data.cases import Case
from r2seg.data.held_out import with_held_out
from r2seg.data.layouts.folder import folder_cases
from r2seg.data.layouts.voc import voc_cases
from r2seg.errors import entry_of

if TYPE_CHECKING:
    from r2seg.config import Data

LAYOUTS: dict[str, Callable[[Data], list[Case]]] = {"folder": folder_cases, "voc": voc_cases}


def find_cases(data: Data) -> list[Case]:
    """The labelled cases of a data set, sorted by id, and after them those of another one that ``data.split.test`` names.

    Raises:
        UserError: The layout is unknown, folders are missing, a case has no label, or two files claim one case.
    """
    cases = entry_of(LAYOUTS, data.layout, "data.layout")(data)
    return with_held_out(cases, data, find_cases)
