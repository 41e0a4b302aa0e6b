"""The words of a report: titles with units, numbers, rules, and the notes that a reader needs beside the numbers.

Everything is said of a summary, the plain data that `summary.summarize` makes; how it is laid out is up to the renderers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2seg.data.images import CUT
from r2seg.errors import counted, some
from r2seg.evaluation.statistics import NUM_DRAWS
from r2seg.metrics.catalogue import MEASURES

LABELS_FOUND = "the values of the references"
LEADING = ("dice", "iou", "hd95", "roc_auc")
ROLES = {"predictions": "evaluated", "against": "compared with", "observer": "second observer"}
RULES = {
    "both empty": "no pixel in reference and prediction: Dice, IoU and surface scores are NaN, left out of means and counted",
    "reference empty": "predicted pixels without a reference: Dice, IoU and surface Dice are 0, distances infinite",
    "prediction empty": "a reference without predicted pixels: Dice and IoU are 0, distances infinite, precision NaN",
    "undefined": "a score whose denominator is empty is NaN; such scores are left out of the mean and counted separately",
    "infinite": "infinite distances are left out of the mean and counted separately",
    "missing": "a case without a prediction file is scored as if nothing was predicted, unless settings.missing is skip",
    "extra": "predictions without a reference are listed and not scored",
    "undeclared": "values other than the declared labels are an error, unless settings.undeclared is background; "
    "masks of 0/1 and of 0/255 are recognised first",
    "smeared": f"a single label's mask smeared by JPEG or smooth resizing is foreground from grey level {CUT} of 255 on",
    "grids": "prediction and reference must lie on one grid, unless settings.resample resamples predictions (nearest neighbour)",
    "not counted": "pixels outside the field of view and pixels with the ignore label are left out of every measure",
    "mean": "mean over the cases with a finite number",
    "pooled": "one score of all pixels of all cases together: large structures weigh more than in the mean",
    "interval": f"95 % percentile bootstrap, {NUM_DRAWS} draws of groups (patients) with replacement; none below two groups",
    "difference": "first method minus the other on the same cases; Wilcoxon signed-rank test, two-sided, on groups' means",
    "oracle": "a threshold with the best pooled Dice on the very cases that are scored: an upper bound, not a result",
}
_KNOWN_TO_THE_RUN = {
    "train": "trained it, so this is not a test of it",
    "validation": "chose its checkpoint and thresholds",
}


def unit(measure: str, distances_in: str) -> str:
    """Unit of a measure: distances in pictures, which have no voxel size, are in pixels."""
    own = MEASURES[measure].unit
    return "px" if own == "mm" and distances_in == "pixels" else own


def title(summary: Mapping[str, Any], measure: str) -> str:
    """Name of a measure with its unit."""
    about, settings = summary["measures"][measure], summary["settings"]
    tolerance = ""
    if measure == "surface_dice":
        tolerance = f" at {settings['tolerance_mm']:g} {'px' if settings['distances_in'] == 'pixels' else 'mm'}"
    unit = f" [{about['unit']}]" if about["unit"] else ""
    return f"{about['title']}{tolerance}{unit}"


def number(measure: str, value: float | None, sign: str = "") -> str:
    """A number as tables show it."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    digits = 4 if not MEASURES[measure].unit else 2 if abs(value) < 1000 else 1
    return f"{value:{sign}.{digits}f}"


def with_interval(measure: str, value: float | None, bounds: Sequence[float] | None, sign: str = "") -> str:
    """A number, with its interval in brackets if it has one."""
    text = number(measure, value, sign)
    if bounds is None or value is None:
        return text
    return f"{text} [{number(measure, bounds[0], sign)}, {number(measure, bounds[1], sign)}]"


def leading(measures: Sequence[str]) -> tuple[str, ...]:
    """The measures that are looked at first: those of `LEADING` that were scored, or else the first two."""
    return tuple(key for key in measures if key in LEADING) or tuple(measures)[:2]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    return [
        f"{counted(summary['num_cases'], 'case')} of {counted(summary['num_groups'], 'group')}",
        *_notes_on_labels_and_run(summary["settings"]),
        *_notes_on_intervals(summary["methods"]),
        *_notes_on_thresholds(summary["settings"]),
        *_notes_on_files(summary),
        *(note for method in summary["methods"] for note in _notes_on_scores(summary, method)),
    ]


def _notes_on_labels_and_run(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["labels_from"] == LABELS_FOUND:
        labels = ", ".join(f"{name}={value}" for name, value in settings["labels"].items())
        yield f"labels taken from {LABELS_FOUND}: {labels}"
    if made_by := settings.get("segmented_by"):
        yield f"segmented by {made_by['run']} with its own preprocessing and window; no statistic of these cases was fitted"
        for part, consequence in _KNOWN_TO_THE_RUN.items():
            if known := made_by[f"cases_of_its_{part}"]:
                yield f"LEAK: {len(known)} of these cases {consequence}: {some(known)}"


def _notes_on_intervals(methods: Mapping[str, Any]) -> Iterator[str]:
    entries = (
        entry for method in methods.values() for label in method["labels"].values() for entry in label["measures"].values()
    )  # fmt: skip
    if not any(entry["mean_interval"] for entry in entries):
        yield "no intervals: they need at least two groups"


def _notes_on_thresholds(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["thresholds"]:
        values = ", ".join(f"{label} {value:.4g}" for label, value in settings["thresholds"].items())
        yield f"label maps made here from the probabilities, thresholds: {values}"
    if count := settings["thresholds_chosen_on_cases_scored_here"]:
        yield f"ORACLE: the thresholds were chosen on {count} of these very cases; an upper bound, not a result"


def _notes_on_files(summary: Mapping[str, Any]) -> Iterator[str]:
    for name, method in summary["methods"].items():
        if missing := method["missing"]:
            skipped = summary["settings"]["missing"] == "skip" or method["role"] == "observer"
            done = "left out" if skipped else "scored as if nothing was predicted"
            yield f"{name}: {len(missing)} missing, {done}: {some(missing, 20)}"
        if undeclared := method["undeclared_pixels"]:
            cases = [f"{case} ({pixels})" for case, pixels in undeclared.items()]
            pixels = counted(sum(undeclared.values()), "pixel")
            yield f"{name}: {pixels} of undeclared values counted as background: {some(cases, 20)}"
        for file in ("reference", "prediction", "field of view"):
            if cut := [case for case, files in method["smeared_masks_cut"].items() if file in files]:
                yield (
                    f"{name}: {file} smeared by JPEG or by resizing and cut at grey level {CUT} of 255: {some(cut, 20)}"
                )
        if extra := method["extra"]:
            yield f"{name}: {len(extra)} without a reference, not scored: {some(extra, 20)}"


def _notes_on_scores(summary: Mapping[str, Any], method: str) -> Iterator[str]:
    found = summary["methods"][method]
    if len(found["labels"]) > 1:
        ranked = [key for key, about in summary["measures"].items() if about["better"]][:2]
        means = [f"{title(summary, key)} {number(key, found['mean_of_labels'][key])}" for key in ranked]
        yield f"{method}: mean of the labels' means: {', '.join(means)}"
    for label, entry in found["labels"].items():
        if empty := entry["cases"]["both empty"]:
            yield f"{method}, {label}: {counted(empty, 'case')} empty in both, left out of means"
        if oracle := entry.get("oracle"):
            yield (
                f"{method}, {label}: oracle threshold {oracle['threshold']:.3f} would give pooled Dice "
                f"{oracle['pooled_dice']:.4f} (chosen on these very cases: not a result)"
            )
