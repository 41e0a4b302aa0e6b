"""The words of a report: titles with units, numbers, rules, and the notes that a reader needs beside the numbers.

Everything is said of a summary, the plain data that `summary.summarize` makes; how it is laid out is up to the renderers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2seg.data.images import CUT
from r2seg.errors import counted, some
from r2seg.evaluation.statistics import FEW_GROUPS, LEVEL, MIN_GROUPS
from r2seg.labels import colors_in_files
from r2seg.metrics.catalogue import MEASURES

LABELS_FOUND = "the values of the references"
GIVEN = "the caller"
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
    "interval": "95 % jackknife: each group (patient) is left out in turn, Student's t with one degree of freedom less than groups; "
    f"cut at the measure's range; none below {MIN_GROUPS} groups",
    "difference": "first method minus the other on the same cases, averaged over the cases where both have a finite number",
    "test": "exact Wilcoxon signed-rank test, two-sided, on groups' differences; a case that only one method fails (infinite "
    "distance, or an undefined score though there was something to find) ranks worst for that method",
    "several tests": "p (Holm) is adjusted for all tests of this report; a method is called better only where it is below "
    f"{1 - LEVEL:.2g}, and never if it fails more cases or if the mean says otherwise",
    "oracle": "a threshold with the best pooled Dice on the very cases that are scored: an upper bound, not a result",
}
_INTERVALS = (
    ("mean_interval", "num_groups"),
    ("pooled_interval", "pooled_num_groups"),
    ("interval", "interval_num_groups"),
)
_NUMBERS = dict(enumerate(("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")))
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


def p_text(p_value: float | None) -> str:
    """A p-value as tables show it."""
    return "" if p_value is None else f"{p_value:.3g}"


def num_compared(entry: Mapping[str, Any]) -> str:
    """Cases that a mean difference is over: "3", or "2 of 3" where some have no difference."""
    return (
        str(entry["num_pairs"])
        if entry["num_cases"] == entry["num_pairs"]
        else f"{entry['num_cases']} of {entry['num_pairs']}"
    )


def case_difference(comparison: Mapping[str, Any], measure: str, case: Mapping[str, Any]) -> str:
    """How much a case differs: "case_1 +0.0123", or "case_1 (fails in out)"."""
    if case["fails"]:
        return f"{case['case']} (fails in {comparison[case['fails']]})"
    return f"{case['case']} {number(measure, case['difference'], '+')}"


def leading(measures: Sequence[str]) -> tuple[str, ...]:
    """The measures that are looked at first: those of `LEADING` that were scored, or else the first two."""
    return tuple(key for key in measures if key in LEADING) or tuple(measures)[:2]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    return [
        f"{counted(summary['num_cases'], 'case')} of {counted(summary['num_groups'], 'group')}",
        *_notes_on_labels_and_run(summary["settings"]),
        *_notes_on_what_is_counted(summary["settings"]),
        *_notes_on_intervals(summary),
        *_notes_on_thresholds(summary["settings"]),
        *_notes_on_files(summary),
        *(note for method in summary["methods"] for note in _notes_on_scores(summary, method)),
        *_notes_on_tests(summary),
    ]


def _notes_on_labels_and_run(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["labels_from"] == LABELS_FOUND:
        labels = ", ".join(f"{name}={value}" for name, value in settings["labels"].items())
        yield f"labels taken from {LABELS_FOUND}: {labels}"
    if made_by := settings.get("segmented_by"):
        yield f"segmented by {made_by['run']} with its own preprocessing and window; no statistic of these cases was fitted"
        if "checkpoint" in made_by:
            yield f"the weights of {made_by['run']} are those of its {made_by['checkpoint']}"
        for part, consequence in _KNOWN_TO_THE_RUN.items():
            if known := made_by[f"cases_of_its_{part}"]:
                yield f"LEAK: {len(known)} of these cases {consequence}: {some(known)}"


def _notes_on_what_is_counted(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["masks"]:
        yield f"counted inside the field of view ({settings['masks']}); pixels outside are in no measure"
    else:
        yield "counted in the whole image: no field of view was given"
    if settings["ignore_label"] is not None:
        yield f"pixels of the reference with the value {settings['ignore_label']} are left out of every measure"


def _notes_on_intervals(summary: Mapping[str, Any]) -> Iterator[str]:
    found = [
        (entry[bounds], entry[groups])
        for part in [*summary["methods"].values(), *summary["comparisons"]]
        for label in part["labels"].values()
        for entry in label.get("measures", label).values()
        for bounds, groups in _INTERVALS
        if bounds in entry
    ]
    smallest = min((groups for bounds, groups in found if bounds is not None), default=None)
    if smallest is None:
        yield f"no intervals: they need at least {MIN_GROUPS} groups"
    else:
        if smallest < FEW_GROUPS:
            yield (
                f"intervals over few groups (as few as {smallest}): below {FEW_GROUPS} they are wide, and those of skewed scores "
                "contain the true value somewhat less often than 95 % of the time"
            )
        if any(bounds is None for bounds, _ in found):
            yield f"some numbers have no interval: fewer than {MIN_GROUPS} groups have such a score"


def _notes_on_tests(summary: Mapping[str, Any]) -> Iterator[str]:
    """What failures, several tests and few groups mean for the comparisons."""
    for comparison in summary["comparisons"]:
        yield from _notes_on_failures(summary, comparison)
    entries = [
        entry for comparison in summary["comparisons"] for found in comparison["labels"].values() for entry in found.values()
    ]  # fmt: skip
    tests = [entry for entry in entries if entry["p_value"] is not None]
    if not tests:
        return
    num_groups = min(entry["num_groups"] for entry in tests)
    lowest = 2 / 2**num_groups
    if lowest * len(tests) >= 1 - LEVEL:
        adjusted = f", and after Holm's adjustment for {len(tests)} tests below {min(1, lowest * len(tests)):.4g}"
        yield (
            f"{_NUMBERS.get(num_groups, str(num_groups))} groups cannot go below p = {lowest:.4g}"
            f"{adjusted if len(tests) > 1 else ''}, however large the difference"
        )
    if len(tests) > 1:
        yield (
            f"{len(tests)} tests were made: of that many, some fall below p = .05 by chance; p (Holm) is adjusted for all of them"
        )
    for comparison in summary["comparisons"]:
        better: dict[str, list[str]] = {}
        for label, found in comparison["labels"].items():
            for key, entry in found.items():
                if entry["favours"]:
                    better.setdefault(entry["favours"], []).append(f"{label} {summary['measures'][key]['title']}")
        for method, where in better.items():
            yield f"{method} is better than {_other(comparison, method)} (p (Holm) below .05): {some(where, 20)}"
        if not better:
            yield f"no difference between {comparison['first']} and {comparison['second']} is shown at p (Holm) below .05"


def _notes_on_failures(summary: Mapping[str, Any], comparison: Mapping[str, Any]) -> Iterator[str]:
    for side in ("first", "second"):
        failed: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for label, found in comparison["labels"].items():
            for key, entry in found.items():
                if cases := tuple(entry[f"only_{side}_fails"]):
                    failed.setdefault((label, cases), []).append(summary["measures"][key]["title"])
        for (label, cases), titles in failed.items():
            method = comparison[side]
            yield (
                f"{method} fails {counted(len(cases), 'case')} of {label} that {_other(comparison, method)} scores "
                f"({some(cases, 20)}): left out of the mean difference of {', '.join(titles)}, and ranked worst in its test"
            )


def _other(comparison: Mapping[str, Any], method: str) -> str:
    return comparison["second" if method == comparison["first"] else "first"]


def _notes_on_thresholds(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["thresholds"]:
        values = ", ".join(f"{label} {value:.4g}" for label, value in settings["thresholds"].items())
        yield f"label maps made here from the probabilities, thresholds: {values}; {_origin(settings)}"
    if count := settings["thresholds_chosen_on_cases_scored_here"]:
        yield f"ORACLE: the thresholds were chosen on {count} of these very cases; an upper bound, not a result"


def _origin(settings: Mapping[str, Any]) -> str:
    """Where the thresholds come from."""
    if settings["thresholds_from"] == GIVEN:
        return "given as numbers, not chosen on any case that is known here"
    return f"chosen by {settings['thresholds_chosen_by']} on the cases recorded in {settings['thresholds_from']}"


def _notes_on_files(summary: Mapping[str, Any]) -> Iterator[str]:
    colors = any(colors_in_files(label) for label in summary["settings"]["labels"].values())
    to_color = ", colours to the nearest declared one" if colors else ""
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
                    f"{name}: {file} smeared by JPEG or by resizing and cut at grey level {CUT} of 255{to_color}: "
                    f"{some(cut, 20)}"
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
        for name, why in (("num_nan", "undefined"), ("num_infinite", "infinite")):
            fewer: dict[int, list[str]] = {}
            for key, scored in entry["measures"].items():
                fewer.setdefault(scored[name], []).append(summary["measures"][key]["title"])
            for count, titles in fewer.items():
                if count:
                    yield f"{method}, {label}: {why} in {counted(count, 'case')} and left out of the mean: {', '.join(titles)}"
        if empty := entry["cases"]["both empty"]:
            yield f"{method}, {label}: {counted(empty, 'case')} empty in both, left out of means"
        if oracle := entry.get("oracle"):
            yield (
                f"{method}, {label}: oracle threshold {oracle['threshold']:.3f} would give pooled Dice "
                f"{oracle['pooled_dice']:.4f} (chosen on these very cases: not a result)"
            )
