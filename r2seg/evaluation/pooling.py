"""Pooled scores of a method and label, resampled by groups: from the rows' evidence, or from histograms of probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from r2seg.evaluation.results import Report, Row
from r2seg.evaluation.statistics import Resampled
from r2seg.metrics import LevelCounts
from r2seg.metrics.catalogue import FAMILIES, MEASURES
from r2seg.metrics.probabilities import joined, rebinned, with_levels

_LEVELS = 4096


def resampled(report: Report, rows: Sequence[Row], key: str) -> Resampled | None:
    """The pooled score of a measure, and how it depends on the groups; None where it has no pooled score.

    Args:
        report: The report.
        rows: Of one method and label.
        key: The measure.
    """
    measure = MEASURES[key]
    if not (measure.pooled and FAMILIES[measure.family].adds_up):
        return None
    if measure.family == "probabilities":
        return _of_histograms(report, rows[0].method, rows[0].label, key)
    evidence = np.stack([row.evidence[measure.family] for row in rows])
    return Resampled.of_sums(evidence, [row.group for row in rows], measure.score)


def _of_histograms(report: Report, method: str, label: str, key: str) -> Resampled | None:
    """Exact for all groups; what single groups contribute is taken from some thousand common levels."""
    if (method, label) not in report.histograms:
        return None
    score = MEASURES[key].score
    exact = report.histograms[method, label]
    levels = joined(with_levels(exact), _LEVELS).levels
    by_group = report.group_histograms[method, label]
    counts = torch.stack([rebinned(by_group[group], levels) for group in sorted(by_group)])
    total = counts.sum(dim=0)
    coarse = score(LevelCounts(levels, total)).item()
    alone = np.array([score(LevelCounts(levels, own)).item() for own in counts])
    without = np.array([score(LevelCounts(levels, total - own)).item() for own in counts])
    whole = score(exact).item()
    # Around the exact score; a group that changes nothing on the common levels leaves it exactly as it is.
    return Resampled(whole, alone, np.where(without == coarse, whole, without + (whole - coarse)))
