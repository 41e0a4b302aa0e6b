"""The labels of references that nobody declared: found in the files' values, if possible while they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from r2seg.data.formats import PICTURES
from r2seg.data.images import IGNORE, ImageError, is_dicom_label, read_label_map, split_suffix
from r2seg.errors import UserError, some
from r2seg.evaluation.options import EvaluationOptions
from r2seg.evaluation.results import Row, Target
from r2seg.evaluation.scoring import Job
from r2seg.labels import Labels
from r2seg.workers import Progress, in_order

ANY_VALUE = {str(value): value for value in range(1, IGNORE)}  # class index = file value
_ABSENT = "absent"
_MAX_FOUND_LABELS = 32
_MAX_LABEL_OF_PICTURES = 223  # larger values may be the white of a smeared mask


def find_labels(targets: Sequence[Target], options: EvaluationOptions) -> Labels:
    """Labels from the values of all references: a single 1 or 255 is "foreground", others are "label_2" and so on.

    Raises:
        UserError: References are RTSTRUCT or DICOM-SEG, all are empty, or their values are too many to be labels.
    """
    drawn = next((target.reference for target in targets if is_dicom_label(target.reference)), None)
    if drawn is not None:
        raise UserError(
            f"{drawn}: its labels are found by their names: name them with --label, such as --label Lung_L=1"
        )
    values = in_order(_values, [target.reference for target in targets], options.workers)
    return _named([found - {0, options.ignore_label} for found in values], targets)


def score_by_value(
    job: Job, targets: Sequence[Target], progress: Progress | None = None
) -> tuple[Labels, list[Row]] | None:
    """Labels of the references and all rows, in one reading; None if more than that is needed.

    Every file value is scored as a label of its own, and the references' values get names afterwards: reading large volumes
    twice, first to find their labels, costs more than counting them. It suffices where only counts are asked.

    Args:
        job: Its labels are `ANY_VALUE`.
        targets: The cases.
        progress: Called after each case.
    """
    masked = job.options.ignore_label is not None or any(target.mask is not None for target in targets)
    needs_labels = set(job.families) - {"counts", "volumes"}
    if masked or needs_labels or job.thresholds is not None or job.options.undeclared != "error":
        return None

    def score(target: Target) -> list[dict[str, Row]]:
        """Rows of each method by value; all values that are in neither file have equal rows, and one is kept."""
        kept: dict[str, dict[str, Row]] = {}
        for row in job.score(target):
            tp, fp, fn, _ = row.counts
            kept.setdefault(row.method, {}).setdefault(row.label if tp + fp + fn else _ABSENT, row)
        return list(kept.values())

    try:
        cases = list(in_order(score, targets, job.options.workers, progress))
    except UserError:  # 0/255 masks, colours or wrong values: reading by the labels takes them or says what is wrong
        return None
    found = [
        {int(value) for rows in case for value, row in rows.items() if row.counts[0] + row.counts[2]} for case in cases
    ]
    if any(max(values, default=0) > _MAX_LABEL_OF_PICTURES for values in found):
        return None  # possibly smeared masks, which are recognised one file at a time
    labels = _named(found, targets)
    names = {str(value): name for name, value in labels.items()}
    if any(set(rows) - set(names) - {_ABSENT} for case in cases for rows in case):
        return None
    return labels, [
        replace(rows.get(value) or rows[_ABSENT], label=name)
        for case in cases
        for rows in case
        for value, name in names.items()
    ]


def _named(found: Sequence[set[int]], targets: Sequence[Target]) -> dict[str, int]:
    """Names for the values that each reference holds."""
    every = sorted(set().union(*found))
    if not every:
        raise UserError(f"all {len(targets)} references are empty, so their labels are unknown: name them with --label")
    if all(values <= {1} or values <= {255} for values in found):
        return {"foreground": 1}
    if len(every) > _MAX_FOUND_LABELS:
        raise UserError(
            f"the references hold {len(every)} values ({some(every)}), too many to be labels: name them with --label, "
            "such as --label vessel=255"
        )
    return {f"label_{value}": value for value in every}


def _values(path: Path) -> set[int]:
    """Values of a label map; 255 alone of a smeared mask."""
    if split_suffix(path)[1] in PICTURES and _is_smeared(path):
        return {IGNORE}
    indices = read_label_map(path, ANY_VALUE, ignore_label=IGNORE).array
    tally = torch.bincount(torch.from_numpy(indices).permute(*reversed(range(indices.ndim))).reshape(-1))
    return set(tally.nonzero().flatten().tolist())


def _is_smeared(path: Path) -> bool:
    try:
        return read_label_map(path, {"foreground": IGNORE}).cut
    except ImageError:  # several labels
        return False
