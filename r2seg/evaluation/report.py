"""What an evaluation found: rows of cases, their summary with intervals, and the files and tables it is told in.

The page for people, report.html, is made by html.py; measures and their formulas are in metrics/catalogue.py.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from r2seg import __version__
from r2seg.errors import UserError, counted, some
from r2seg.evaluation.pairing import Target
from r2seg.evaluation.statistics import NUM_DRAWS, Bootstrap, compare, interval
from r2seg.files import write_atomically
from r2seg.metrics import best_threshold
from r2seg.metrics.catalogue import FAMILIES, MEASURES
from r2seg.thresholds import FILE as THRESHOLDS
from r2seg.thresholds import Thresholds, fingerprint

if TYPE_CHECKING:
    from rich.console import RenderableType

    from r2seg.evaluation.scoring import Masks

SCHEMA_VERSION = 1
FORMATS = ("csv", "json", "html", "markdown", "latex")
LEADING = ("dice", "iou", "hd95", "roc_auc")
STATUSES = ("scored", "prediction empty", "reference empty", "both empty", "missing")

RULES = {
    "both empty": "no pixel in reference and prediction: Dice, IoU and surface scores are NaN, left out of means and counted",
    "reference empty": "predicted pixels without a reference: Dice, IoU and surface Dice are 0, distances infinite",
    "prediction empty": "a reference without predicted pixels: Dice and IoU are 0, distances infinite, precision NaN",
    "undefined": "a score whose denominator is empty is NaN; it is left out of the mean and counted beside it",
    "infinite": "infinite distances are left out of the mean and counted beside it",
    "missing": "a case without a prediction file is scored as if nothing was predicted, unless settings.missing is skip",
    "extra": "predictions without a reference are listed and not scored",
    "undeclared": "values other than the declared labels are an error, unless settings.undeclared is background",
    "grids": "prediction and reference must lie on one grid, unless settings.resample brings predictions over (nearest neighbour)",
    "not counted": "pixels outside the field of view and pixels with the ignore label are left out of every measure",
    "mean": "mean over the cases with a finite number",
    "pooled": "one score of all pixels of all cases together: large structures weigh more than in the mean",
    "interval": f"95 % percentile bootstrap, {NUM_DRAWS} draws of groups (patients) with replacement; none below two groups",
    "difference": "first method less the other on the same cases; Wilcoxon signed-rank test, two-sided, on groups' means",
    "oracle": "a threshold with the best pooled Dice on the very cases that are scored: an upper bound, not a result",
}


@dataclass(frozen=True)
class Method:
    """A set of predictions.

    Attributes:
        name: In all tables.
        role: "predictions", "against" (compared with the first) or "observer" (a second reference).
        folder: Where they are.
        missing: Cases it has no prediction for.
        extra: Its files without a reference.
    """

    name: str
    role: str
    folder: Path
    missing: tuple[str, ...] = ()
    extra: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Row:
    """One label of one case, scored.

    Attributes:
        method, case, group, label: Whose.
        status: One of `STATUSES`.
        counts: tp, fp, fn, tn.
        undeclared: Pixels of reference and prediction whose undeclared value was taken as background.
        scores: Measure -> number; NaN where it is undefined.
        evidence: Family -> vector that adds up over cases.
        prediction: File, or None where it is missing.
        reference: File.
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
    undeclared: int = 0


@dataclass(frozen=True)
class Report:
    """An evaluation's result.

    Attributes:
        labels: Names, in class order.
        measures: Names, in the tables' order.
        methods: The first is what was evaluated; others are compared with it.
        targets: Case id -> files it was scored against.
        settings: What `evaluate` was asked, plain data.
        seed: Of the bootstrap.
        rows: One a method, case and label.
        histograms: (method, label) -> pooled histogram of probabilities.
        masks_of: (case, label) -> `Masks` of the first method, read again for pictures.
    """

    labels: tuple[str, ...]
    measures: tuple[str, ...]
    methods: tuple[Method, ...]
    targets: Mapping[str, Target]
    settings: Mapping[str, Any]
    masks_of: Callable[[str, str], Masks]
    seed: int = 0
    rows: list[Row] = field(default_factory=list)
    histograms: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Takes a row in; histograms are summed at once, since one a case would be a megabyte each."""
        evidence = dict(row.evidence)
        histogram = evidence.pop("probabilities", None)
        if histogram is not None:
            key = (row.method, row.label)
            self.histograms[key] = self.histograms.get(key, 0) + torch.from_numpy(histogram)
        self.rows.append(Row(**{**vars(row), "evidence": evidence}))

    def of(self, method: str, label: str) -> list[Row]:
        """Rows of one method and label, in the order of the cases."""
        return [row for row in self.rows if row.method == method and row.label == label]

    @property
    def main(self) -> Method:
        return self.methods[0]

    @property
    def num_missing(self) -> int:
        """Cases that the evaluated method has no prediction for."""
        return len(self.main.missing)

    def unit(self, measure: str) -> str:
        """Unit of a measure here: distances in pictures without geometry are in pixels."""
        unit = MEASURES[measure].unit
        return "px" if unit == "mm" and self.settings.get("distances_in") == "pixels" else unit

    @property
    def leading(self) -> tuple[str, ...]:
        """The measures that are looked at first: those of `LEADING` that were scored, or else the first two."""
        return tuple(key for key in self.measures if key in LEADING) or self.measures[:2]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """All that summary.json holds, as plain data; numbers that are undefined are None."""
        return _plain(
            {
                "schema_version": SCHEMA_VERSION,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": _versions(),
                "settings": self.settings,
                "rules": RULES,
                "measures": {
                    key: {
                        "title": MEASURES[key].title,
                        "formula": MEASURES[key].formula,
                        "unit": self.unit(key),
                        "better": MEASURES[key].better,
                    }
                    for key in self.measures
                },
                "num_cases": len(self.targets),
                "num_groups": len({target.group for target in self.targets.values()}),
                "methods": {
                    method.name: {
                        "role": method.role,
                        "folder": str(method.folder),
                        "missing": list(method.missing),
                        "extra": [str(path) for path in method.extra],
                        "labels": {label: self._label_summary(method.name, label) for label in self.labels},
                        "mean_of_labels": self._mean_of_labels(method.name),
                    }
                    for method in self.methods
                },
                "comparisons": [self._comparison(other) for other in self.methods[1:] if other.role == "against"],
            }
        )

    def _label_summary(self, method: str, label: str) -> dict[str, Any]:
        rows = self.of(method, label)
        if not rows:
            return {"cases": dict.fromkeys(STATUSES, 0), "counts": None, "measures": {}}
        bootstrap = Bootstrap.over([row.group for row in rows], seed=self.seed)
        several = bootstrap.num_groups > 1
        found: dict[str, Any] = {}
        for key in self.measures:
            if key not in rows[0].scores:
                continue
            measure = MEASURES[key]
            values = np.array([row.scores[key] for row in rows])
            finite = values[np.isfinite(values)]
            groups = np.unique(bootstrap.groups[np.isfinite(values)])
            entry = {
                "mean": finite.mean() if len(finite) else None,
                "mean_interval": interval(bootstrap.means(values)) if len(groups) > 1 else None,
                "std": finite.std(ddof=1) if len(finite) > 1 else None,
                "median": np.median(finite) if len(finite) else None,
                "num_cases": len(finite),
                "num_nan": np.isnan(values).sum(),
                "num_infinite": np.isinf(values).sum(),
            }
            if measure.pooled and FAMILIES[measure.family].adds_up:
                if measure.family == "probabilities":
                    entry["pooled"] = measure.score(self.histograms[method, label])
                else:
                    evidence = np.stack([row.evidence[measure.family] for row in rows])
                    entry["pooled"] = measure.score(torch.from_numpy(evidence.sum(axis=0)))
                    entry["pooled_interval"] = interval(bootstrap.pooled(evidence, measure.score)) if several else None
            found[key] = entry
        entry = {
            "cases": {status: sum(row.status == status for row in rows) for status in STATUSES},
            "num_groups": bootstrap.num_groups,
            "undeclared_pixels": sum(row.undeclared for row in rows),
            "counts": dict(zip(("tp", "fp", "fn", "tn"), np.sum([row.counts for row in rows], axis=0), strict=True)),
            "measures": found,
        }
        histogram = self.histograms.get((method, label))
        if histogram is not None and histogram[1].any():
            threshold, score = best_threshold(histogram)
            entry["oracle"] = {"threshold": threshold, "pooled_dice": score}
        return entry

    def _mean_of_labels(self, method: str) -> dict[str, float | None]:
        """Mean over the labels of their mean over cases, as training's validation has it; None where no label has one."""
        means: dict[str, float | None] = {}
        for key in self.measures:
            scores = [
                np.array([row.scores.get(key, np.nan) for row in self.of(method, label)]) for label in self.labels
            ]
            finite = [values[np.isfinite(values)] for values in scores]
            by_label = [values.mean() for values in finite if len(values)]
            means[key] = float(np.mean(by_label)) if by_label else None
        return means

    def thresholds(self) -> Thresholds:
        """For every label of the first method the threshold with the best pooled Dice here: to be used on other cases.

        Raises:
            ValueError: Its probabilities were not scored, or a label has no pixel in the references.
        """
        missing = [label for label in self.labels if (self.main.name, label) not in self.histograms]
        if missing:
            raise ValueError(f"no probabilities of {some(missing)} were scored: ask for the measures 'probabilities'")
        return Thresholds(
            {label: best_threshold(self.histograms[self.main.name, label])[0] for label in self.labels},
            "pooled Dice",
            frozenset(fingerprint(self.targets[case].reference) for case in self._labelled_cases()),
        )

    def _labelled_cases(self) -> set[str]:
        """Cases whose reference has a pixel of a label; all empty references look alike, and tell no case from another."""
        return {row.case for row in self.rows if row.counts[0] + row.counts[2]}

    def _comparison(self, other: Method) -> dict[str, Any]:
        labels: dict[str, Any] = {}
        for label in self.labels:
            second = {row.case: row for row in self.of(other.name, label)}
            pairs = [(row, second[row.case]) for row in self.of(self.main.name, label) if row.case in second]
            labels[label] = {}
            for key in self.measures if pairs else ():
                if key == "reference_volume_ml":  # the same on both sides
                    continue
                ours, theirs = (
                    np.array([row.scores.get(key, np.nan) for row in rows]) for rows in zip(*pairs, strict=True)
                )
                found = compare(ours, theirs, [row.group for row, _ in pairs], seed=self.seed)
                labels[label][key] = {
                    "mean_difference": found.mean,
                    "interval": found.interval,
                    "p_value": found.p_value,
                    "num_cases": found.num_cases,
                    "num_groups": found.num_groups,
                    "largest": [
                        {
                            "case": pairs[index][0].case,
                            "first": ours[index],
                            "second": theirs[index],
                            "difference": ours[index] - theirs[index],
                        }
                        for index in found.largest
                        if ours[index] != theirs[index]
                    ],
                }
        return {"first": self.main.name, "second": other.name, "labels": labels}

    # --- telling it

    def write(self, folder: Path, formats: Sequence[str] = ("csv", "json", "html")) -> list[Path]:
        """Writes the report's files; each appears whole or not at all.

        Args:
            folder: Made where needed.
            formats: Of `FORMATS`: cases.csv, summary.json (and thresholds.json, where probabilities were scored),
                report.html, summary.md, summary.tex.

        Raises:
            UserError: A format is unknown, or the folder cannot be written.
        """
        makers = {
            "csv": ("cases.csv", self.cases_csv),
            "json": ("summary.json", lambda: json.dumps(self.summary, indent=1, ensure_ascii=False, allow_nan=False)),
            "html": ("report.html", lambda: self._html(folder)),
            "markdown": ("summary.md", self.markdown),
            "latex": ("summary.tex", self.latex),
        }
        check_output(folder, formats)
        texts = {makers[name][0]: makers[name][1]() for name in formats}  # all made before any is written
        pooled = [self.histograms.get((self.main.name, label)) for label in self.labels]
        if "json" in formats and all(histogram is not None and histogram[1].any() for histogram in pooled):
            texts[THRESHOLDS] = self.thresholds().json()
        for name, text in texts.items():
            write_atomically(folder / name, lambda file, text=text: file.write(text.encode("utf-8")))
        return [folder / name for name in texts]

    def _html(self, folder: Path) -> str:
        from r2seg.evaluation.html import render

        return render(self, folder)

    def cases_csv(self) -> str:
        """One row a method, case and label; undefined numbers are empty, infinite ones "inf"."""
        extra = [
            (name, column, index)
            for name, family in FAMILIES.items()
            if name != "counts" and any(name in row.evidence for row in self.rows)
            for index, column in enumerate(family.columns)
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["method", "case", "group", "label", "status", "tp", "fp", "fn", "tn", "undeclared_pixels"]
            + [column for _, column, _ in extra]
            + list(self.measures)
            + ["prediction", "reference"]
        )
        for row in self.rows:
            writer.writerow(
                [row.method, row.case, row.group, row.label, row.status, *row.counts, row.undeclared]
                + [int(row.evidence[name][index]) if name in row.evidence else "" for name, _, index in extra]
                + [_csv_number(row.scores.get(key, math.nan)) for key in self.measures]
                + [row.prediction or "", row.reference]
            )
        return text.getvalue()

    def terminal(self) -> RenderableType:
        """Tables and notes for a terminal, for rich's ``Console.print``."""
        from r2seg.evaluation.tables import terminal

        return terminal(self)

    def markdown(self) -> str:
        """Table of means and pooled scores for a paper or an issue, and the notes."""
        from r2seg.evaluation.tables import markdown

        return markdown(self)

    def latex(self) -> str:
        """The same table for LaTeX (booktabs), and the notes as comments."""
        from r2seg.evaluation.tables import latex

        return latex(self)

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, a line each."""
        summary = self.summary
        notes = [f"{counted(summary['num_cases'], 'case')} of {counted(summary['num_groups'], 'group')}"]
        if self.settings.get("labels_from") == "the values of the references":
            labels = ", ".join(f"{name}={value}" for name, value in self.settings["labels"].items())
            notes.append(f"labels taken from the values of the references: {labels}")
        if made_by := self.settings.get("segmented_by"):
            notes.append(
                f"segmented by {made_by['run']} with its own preprocessing and window; no statistic of these cases was fitted"
            )
            for part, consequence in (
                ("train", "trained it, so this is no test of it"),
                ("validation", "chose its checkpoint and thresholds"),
            ):
                if known := made_by[f"cases_of_its_{part}"]:
                    notes.append(f"LEAK: {len(known)} of these cases {consequence}: {some(known)}")
        if not any(entry["mean_interval"] for entry in self._entries()):
            notes.append("no intervals: they need at least two groups")
        if self.settings.get("thresholds"):
            values = ", ".join(f"{label} {value:.4g}" for label, value in self.settings["thresholds"].items())
            notes.append(f"label maps made here from the probabilities, thresholds: {values}")
        if count := self.settings.get("thresholds_chosen_on_cases_scored_here"):
            notes.append(
                f"ORACLE: the thresholds were chosen on {count} of these very cases; an upper bound, not a result"
            )
        for method in self.methods:
            if method.missing:
                skipped = self.settings.get("missing") == "skip" or method.role == "observer"
                done = "left out" if skipped else "scored as if nothing was predicted"
                notes.append(f"{method.name}: {len(method.missing)} missing, {done}: {some(method.missing, 20)}")
            if method.extra:
                notes.append(
                    f"{method.name}: {len(method.extra)} without a reference, not scored: {some(method.extra, 20)}"
                )
        for method, found in summary["methods"].items():
            if len(self.labels) > 1:
                means = [
                    f"{self.title(key)} {self.number(key, found['mean_of_labels'][key])}"
                    for key in [key for key in self.measures if MEASURES[key].better][:2]
                ]
                notes.append(f"{method}: mean of the labels' means: {', '.join(means)}")
            for label, entry in found["labels"].items():
                if entry["cases"]["both empty"]:
                    notes.append(
                        f"{method}, {label}: {counted(entry['cases']['both empty'], 'case')} empty in both, left out of means"
                    )
                if entry.get("undeclared_pixels"):
                    notes.append(
                        f"{method}, {label}: {entry['undeclared_pixels']} pixels of undeclared values as background"
                    )
                if "oracle" in entry:
                    notes.append(
                        f"{method}, {label}: oracle threshold {entry['oracle']['threshold']:.3f} would give pooled Dice "
                        f"{entry['oracle']['pooled_dice']:.4f} (chosen on these very cases: no result)"
                    )
        return notes

    def _entries(self) -> Iterable[Mapping[str, Any]]:
        for method in self.summary["methods"].values():
            for label in method["labels"].values():
                yield from label["measures"].values()

    def title(self, measure: str) -> str:
        """Name of a measure with its unit."""
        unit = self.unit(measure)
        tolerance = (
            f" at {self.settings.get('tolerance_mm', 1):g} {self.distance_unit}" if measure == "surface_dice" else ""
        )
        return f"{MEASURES[measure].title}{tolerance}{f' [{unit}]' if unit else ''}"

    @property
    def distance_unit(self) -> str:
        return "px" if self.settings.get("distances_in") == "pixels" else "mm"

    def number(self, measure: str, value: float | None, sign: str = "") -> str:
        """A number as tables show it."""
        if value is None or math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞"
        digits = 4 if not MEASURES[measure].unit else 2 if abs(value) < 1000 else 1
        return f"{value:{sign}.{digits}f}"

    def with_interval(self, measure: str, value: float | None, bounds: Sequence[float] | None, sign: str = "") -> str:
        """A number and its interval in brackets, where it has one."""
        text = self.number(measure, value, sign)
        if bounds is None or value is None:
            return text
        return f"{text} [{self.number(measure, bounds[0], sign)}, {self.number(measure, bounds[1], sign)}]"


def check_output(folder: Path | None, formats: Sequence[str]) -> None:
    """What can be known of a report's place and formats before the first case is scored.

    Raises:
        UserError: A format is unknown, or the folder is a file or may not be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no format of reports; give {', '.join(FORMATS)}")
    if folder is None:
        return
    standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not standing.is_dir():
        raise UserError(f"{standing} is a file: name a folder for the report")
    if not os.access(standing, os.W_OK):
        raise UserError(f"{standing} may not be written: name another folder for the report")


def _csv_number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _plain(value: Any) -> Any:
    """Only what JSON has; NaN and infinity are None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, torch.Tensor | np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _versions() -> dict[str, str]:
    found = {"r2seg": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "scipy", "scikit-image", "nibabel", "SimpleITK", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
