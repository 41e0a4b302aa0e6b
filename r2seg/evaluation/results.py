"""What an evaluation found, as data: cases and their files, methods, rows of scores, and the report that holds them.

Nothing here is computed or worded: means and comparisons are in summary.py, words in wording.py, files in write.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r2seg.evaluation.options import EvaluationOptions
from r2seg.labels import Labels
from r2seg.metrics import Histogram, LevelCounts
from r2seg.thresholds import Thresholds

STATUSES = ("scored", "prediction empty", "reference empty", "both empty", "missing")


@dataclass(frozen=True)
class Target:
    """What predictions of one case are scored against.

    Attributes:
        case: Id of the case: relative path without suffix, forward slashes.
        group: Patient; intervals are over groups, not cases.
        reference: Label map; the first of them if each label has its own.
        mask: Field of view, or None for the whole image.
        images: Files of the image, for pictures in the report; may be empty.
        others: Label maps of the labels after the first, if labels overlap and each has its own.
    """

    case: str
    group: str
    reference: Path
    mask: Path | None = None
    images: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Method:
    """A set of predictions, paired with the cases.

    Attributes:
        name: In all tables.
        role: "predictions", "against" (compared with the first) or "observer" (a second reference).
        folder: Where the predictions are.
        files: Case id -> prediction.
        missing: Cases without a prediction.
        extra: Predictions without a reference.
        probabilities: Case id -> probability map, or None if they are not needed.
    """

    name: str
    role: str
    folder: Path
    files: Mapping[str, Path]
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()
    probabilities: Mapping[str, Path] | None = None


@dataclass(frozen=True)
class Row:
    """One label of one case, scored.

    Attributes:
        method, case, group, label: Whose scores these are.
        status: One of `STATUSES`.
        counts: tp, fp, fn, tn.
        scores: Measure -> number; NaN where it is undefined.
        evidence: Family of measures -> vector that its scores follow from.
        prediction: File, or None if it is missing.
        reference: File.
        histogram: Of its probabilities, until all cases are pooled; None in a report.
        undeclared: Pixels of reference and prediction whose undeclared value was counted as background.
        cut: Which of its files ("reference", "prediction", "field of view") are smeared masks: cut at grey level 128, colours to the nearest.
    """

    method: str
    case: str
    group: str
    label: str
    status: str
    counts: tuple[int, int, int, int]
    scores: Mapping[str, float]
    evidence: Mapping[str, np.ndarray]
    prediction: Path | None
    reference: Path
    histogram: Histogram | None = None
    undeclared: int = 0
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """An evaluation's result.

    Attributes:
        options: What was asked.
        references: Where the references come from, in words.
        labels: Name -> value or values in the files, in class order.
        measures: Names, in the tables' order.
        methods: The first is what was evaluated; others are compared with it.
        targets: Case id -> files it was scored against.
        thresholds: One for each label, if the label maps were made from probabilities.
        num_oracle_cases: How many of the cases scored here the thresholds were chosen on.
        distances_in: "mm", or "pixels" where no reference has a voxel size.
        rows: One per case, method and label.
        histograms: (method, label) -> histogram of its probabilities over all cases.
        group_histograms: (method, label) -> group -> the same of the group's cases, coarser: intervals follow from them.
        created: Time of the evaluation, ISO 8601.
        versions: Package -> version that it was computed with.
    """

    options: EvaluationOptions
    references: str
    labels: Labels
    measures: tuple[str, ...]
    methods: tuple[Method, ...]
    targets: Mapping[str, Target]
    thresholds: Thresholds | None
    num_oracle_cases: int
    distances_in: str
    rows: tuple[Row, ...]
    histograms: Mapping[tuple[str, str], Histogram]
    group_histograms: Mapping[tuple[str, str], Mapping[str, LevelCounts]]
    created: str
    versions: Mapping[str, str]

    @property
    def main(self) -> Method:
        """The method that was evaluated."""
        return self.methods[0]

    def of(self, method: str, label: str) -> list[Row]:
        """Rows of one method and label, in the order of the cases."""
        return [row for row in self.rows if row.method == method and row.label == label]
