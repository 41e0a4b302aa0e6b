"""A report's numbers: means, intervals, pooled scores and comparisons, as the plain data of summary.json.

Pure functions of a `Report`. Comparisons of methods are in comparison.py, intervals in statistics.py, the words in wording.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from r2seg.evaluation import statistics
from r2seg.evaluation.comparison import compare_methods
from r2seg.evaluation.pooling import resampled
from r2seg.evaluation.results import STATUSES, Method, Report, Row
from r2seg.evaluation.wording import GIVEN, LABELS_FOUND, RULES, notes, unit
from r2seg.metrics import best_threshold
from r2seg.metrics.catalogue import MEASURES
from r2seg.metrics.probabilities import with_levels
from r2seg.thresholds import Thresholds, fingerprint

SCHEMA_VERSION = 1


def summarize(report: Report) -> dict[str, Any]:
    """All that summary.json holds; numbers that are undefined are None."""
    summary = _plain(
        {
            "schema_version": SCHEMA_VERSION,
            "created": report.created,
            "versions": report.versions,
            "settings": _settings(report),
            "rules": RULES,
            "measures": {
                key: {
                    "title": MEASURES[key].title,
                    "formula": MEASURES[key].formula,
                    "unit": unit(key, report.distances_in),
                    "better": MEASURES[key].better,
                }
                for key in report.measures
            },
            "num_cases": len(report.targets),
            "num_groups": len({target.group for target in report.targets.values()}),
            "methods": {method.name: _method_summary(report, method) for method in report.methods},
            "comparisons": compare_methods(report),
        }
    )
    return {**summary, "notes": notes(summary)}


def best_thresholds(report: Report) -> Thresholds | None:
    """The threshold with the best pooled Dice here, for each label of the first method: to be used on other cases.

    None if its probabilities were not scored, or if a label has no pixel in the references.
    """
    values = {}
    for label in report.labels:
        histogram = report.histograms.get((report.main.name, label))
        if histogram is None or not with_levels(histogram).positive.any():
            return None
        values[label] = best_threshold(histogram)[0]
    # All empty references look alike: a file that holds no label does not identify its case.
    labelled = {row.case for row in report.rows if row.counts[0] + row.counts[2]}
    return Thresholds(
        values,
        "pooled Dice",
        frozenset(fingerprint(report.targets[case].reference) for case in labelled),
    )


def _settings(report: Report) -> dict[str, Any]:
    """What was asked, and what followed from the files."""
    options, thresholds = report.options, report.thresholds
    masks = options.masks or ("the cases' own" if any(target.mask for target in report.targets.values()) else None)
    return {
        "predictions": report.main.folder,
        "references": report.references,
        "labels": report.labels,
        "labels_from": LABELS_FOUND if options.labels is None else GIVEN,
        **options.recorded(),
        "masks": masks,
        "mask_name": options.mask_name if options.masks else None,
        "distances_in": report.distances_in,
        "thresholds": None if thresholds is None else thresholds.values,
        "thresholds_from": None
        if thresholds is None
        else options.threshold
        if isinstance(options.threshold, Path)
        else GIVEN,
        "thresholds_chosen_by": None if thresholds is None else thresholds.criterion,
        "thresholds_chosen_on_cases_scored_here": report.num_oracle_cases,
        **(options.provenance or {}),
    }


def _method_summary(report: Report, method: Method) -> dict[str, Any]:
    return {
        "role": method.role,
        "folder": method.folder,
        "missing": method.missing,
        "extra": method.extra,
        "undeclared_pixels": _by_case(report, method.name, "undeclared"),
        "smeared_masks_cut": _by_case(report, method.name, "cut"),
        "labels": {label: _label_summary(report, method.name, label) for label in report.labels},
        "mean_of_labels": _mean_of_labels(report, method.name),
    }


def _by_case(report: Report, method: str, attribute: str) -> dict[str, Any]:
    """Case -> what a row says of the case's files, whichever label it is of; only where it says anything."""
    rows = {row.case: getattr(row, attribute) for row in report.rows if row.method == method}
    return {case: value for case, value in rows.items() if value}


def _label_summary(report: Report, method: str, label: str) -> dict[str, Any]:
    rows = report.of(method, label)
    if not rows:
        return {"cases": dict.fromkeys(STATUSES, 0), "counts": None, "measures": {}}
    histogram = report.histograms.get((method, label))
    summary = {
        "cases": {status: sum(row.status == status for row in rows) for status in STATUSES},
        "num_groups": len({row.group for row in rows}),
        "undeclared_pixels": sum(row.undeclared for row in rows),
        "counts": dict(zip(("tp", "fp", "fn", "tn"), np.sum([row.counts for row in rows], axis=0), strict=True)),
        "measures": {
            key: {**_means(key, rows), **_pooled(report, key, rows)} for key in report.measures if key in rows[0].scores
        },
    }
    if histogram is not None and with_levels(histogram).positive.any():
        threshold, score = best_threshold(histogram)
        summary["oracle"] = {"threshold": threshold, "pooled_dice": score}
    return summary


def _means(key: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Mean of a measure over cases, its interval, and how many cases and groups it is over."""
    values = np.array([row.scores[key] for row in rows])
    finite = values[np.isfinite(values)]
    found = statistics.mean(values, [row.group for row in rows], MEASURES[key].range)
    return {
        "mean": found.value,
        "mean_interval": found.interval,
        "std": finite.std(ddof=1) if len(finite) > 1 else None,
        "median": np.median(finite) if len(finite) else None,
        "num_cases": len(finite),
        "num_groups": found.num_groups,
        "num_nan": np.isnan(values).sum(),
        "num_infinite": np.isinf(values).sum(),
    }


def _pooled(report: Report, key: str, rows: Sequence[Row]) -> dict[str, Any]:
    """One score of all pixels of all cases together, where that has a meaning."""
    found = resampled(report, rows, key)
    if found is None:
        return {}
    estimate = statistics.pooled(found, MEASURES[key].range)
    return {
        "pooled": estimate.value,
        "pooled_interval": estimate.interval,
        "pooled_num_groups": estimate.num_groups,
    }


def _mean_of_labels(report: Report, method: str) -> dict[str, float | None]:
    """Mean over the labels of their mean over cases, as in training's validation; None if no label has one."""
    means: dict[str, float | None] = {}
    for key in report.measures:
        scores = [
            np.array([row.scores.get(key, np.nan) for row in report.of(method, label)]) for label in report.labels
        ]
        finite = [values[np.isfinite(values)] for values in scores]
        by_label = [values.mean() for values in finite if len(values)]
        means[key] = float(np.mean(by_label)) if by_label else None
    return means


def _plain(value: Any) -> Any:
    """Only what JSON has; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, torch.Tensor | np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
