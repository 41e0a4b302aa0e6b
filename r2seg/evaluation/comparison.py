"""The first method of a report against each other one, on the cases that both have, as plain data for summary.json.

The tests and intervals are in statistics.py, the words in wording.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from r2seg.evaluation import statistics
from r2seg.evaluation.pooling import resampled
from r2seg.evaluation.results import Method, Report, Row
from r2seg.metrics.catalogue import MEASURES

ALPHA = 1 - statistics.LEVEL
Pairs = Sequence[tuple[Row, Row]]


def compare_methods(report: Report) -> list[dict[str, Any]]:
    """One entry per method that was compared with the first; their p-values are adjusted together (Holm)."""
    comparisons = [_comparison(report, other) for other in report.methods if other.role == "against"]
    entries = [
        (comparison, entry)
        for comparison in comparisons
        for found in comparison["labels"].values()
        for entry in found.values()
    ]
    adjusted = statistics.holm([entry["p_value"] for _, entry in entries])
    for (comparison, entry), p_holm in zip(entries, adjusted, strict=True):
        sign = entry.pop("sign")
        entry["p_holm"] = p_holm
        entry["favours"] = comparison["first" if sign > 0 else "second"] if sign and p_holm < ALPHA else None
    return comparisons


def _comparison(report: Report, other: Method) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for label in report.labels:
        second = {row.case: row for row in report.of(other.name, label)}
        pairs = [(row, second[row.case]) for row in report.of(report.main.name, label) if row.case in second]
        # The volume of the reference is the same on both sides.
        keys = [key for key in report.measures if key != "reference_volume_ml"] if pairs else []
        labels[label] = {key: {**_difference(key, pairs), **_pooled(report, key, pairs)} for key in keys}
    return {"first": report.main.name, "second": other.name, "labels": labels}


def _difference(key: str, pairs: Pairs) -> dict[str, Any]:
    """Paired difference of one measure."""
    measure = MEASURES[key]
    first, second = (np.array([row.scores.get(key, np.nan) for row in rows]) for rows in zip(*pairs, strict=True))
    empty = tuple(np.array([row.status == "both empty" for row in rows]) for rows in zip(*pairs, strict=True))
    found = statistics.compare(
        first,
        second,
        [row.group for row, _ in pairs],
        better=measure.better,
        nothing_to_find=(empty[0], empty[1]),
        within=measure.range_of_differences,
    )
    return {
        "mean_difference": found.mean.value,
        "interval": found.mean.interval,
        "interval_num_groups": found.mean.num_groups,
        "p_value": found.p_value,
        "num_cases": found.num_cases,
        "num_pairs": len(pairs),
        "num_groups": found.num_groups,
        "only_first_fails": [pairs[index][0].case for index in found.first_fails],
        "only_second_fails": [pairs[index][0].case for index in found.second_fails],
        "sign": found.favours,
        "largest": [
            {
                "case": pairs[index][0].case,
                "first": first[index],
                "second": second[index],
                "difference": first[index] - second[index],
                "fails": "first" if index in found.first_fails else "second" if index in found.second_fails else None,
            }
            for index in found.largest
            if first[index] != second[index]
        ],
    }


def _pooled(report: Report, key: str, pairs: Pairs) -> dict[str, Any]:
    """Difference of the scores of all pixels of all these cases together, where that has a meaning."""
    sides = [list(rows) for rows in zip(*pairs, strict=True)]
    if MEASURES[key].family == "probabilities" and any(
        len(report.of(rows[0].method, rows[0].label)) != len(rows) for rows in sides
    ):
        return {}  # their histograms hold cases that the other method does not have
    first, second = (resampled(report, rows, key) for rows in sides)
    if first is None or second is None:
        return {}
    found = statistics.pooled_difference(first, second, MEASURES[key].range_of_differences)
    if not math.isfinite(found.value):
        return {}
    return {"pooled_difference": found.value, "pooled_interval": found.interval, "pooled_num_groups": found.num_groups}
