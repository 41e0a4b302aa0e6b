"""Which labels occur in which case, read from the label maps: what stratified splits need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from r2seg.data.cases import Case
from r2seg.data.formats import File, open_file
from r2seg.data.images import IGNORE, is_dicom_label, read_labels
from r2seg.errors import UserError
from r2seg.metrics import label_mask
from r2seg.workers import in_order

if TYPE_CHECKING:
    from r2seg.config import Data


def labels_present(
    cases: Sequence[Case], data: Data, on_case: Callable[[int, int], None] | None = None
) -> dict[str, frozenset[str]]:
    """Case id -> names of the labels that occur in its label map; none for a case without a label map.

    Several files are read at the same time.

    Args:
        cases: The cases.
        data: Section whose labels are looked for.
        on_case: Called with the number of cases read and of all cases.

    Raises:
        UserError: With every label map that cannot be read.
    """
    names = list(data.labels)

    def present(case: Case) -> frozenset[str] | str:
        if not case.labels:
            return frozenset()
        try:
            indices = read_labels(
                case.labels, data.labels, data.ignore_label, overlapping=data.overlapping, like=_drawn_on(case, data)
            ).array
        except UserError as error:
            return str(error)
        counts = np.bincount(indices.reshape(-1), minlength=IGNORE + 1)
        values = np.flatnonzero(counts)
        return frozenset(
            name for index, name in enumerate(names, start=1) if label_mask(values, index, data.overlapping).any()
        )

    found: dict[str, frozenset[str]] = {}
    mistakes: list[str] = []
    for case, result in zip(cases, in_order(present, cases, None, on_case), strict=True):
        if isinstance(result, str):
            mistakes.append(result)
        else:
            found[case.id] = result
    if mistakes:
        raise UserError("\n".join(mistakes))
    return found


def _drawn_on(case: Case, data: Data) -> File | None:
    """The image of a label that has no grid of its own; others are read without it."""
    if not is_dicom_label(case.labels[0]):
        return None
    return open_file(case.images[0], series=data.series)
