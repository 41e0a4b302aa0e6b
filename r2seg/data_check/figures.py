"""The figures of a check's parts: sizes, voxel sizes, intensities and label shares, as plain data that tables and pages word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from r2seg.data.fingerprint import CaseFacts
from r2seg.data_check.check import CheckedCase, DataCheck

_BINS = 60
_FEW = 3


@dataclass(frozen=True)
class PartFigures:
    """What the cases of one part are; of those that can be read.

    Attributes:
        num_cases: All cases of the part.
        num_groups: Its groups (patients); copies of one image count as one.
        sizes: "512x512x130" -> number of cases, from the smallest to the largest; volumes in R, A, S order.
        spacings_mm: The same of voxel sizes, "0.7x0.7x3"; {} without geometry.
        orientations: Such as "LPS", the most frequent first.
        channels: Channels and type, such as "3 x uint8", the most frequent first.
        intensity: Smallest 0.5 percentile and largest 99.5 percentile of a case, over all channels; None without a readable image.
        labels: Label -> (share of the counted pixels, 0 to 1; number of cases that hold it).
    """

    num_cases: int
    num_groups: int
    sizes: dict[str, int]
    spacings_mm: dict[str, int]
    orientations: dict[str, int]
    channels: dict[str, int]
    intensity: tuple[float, float] | None
    labels: dict[str, tuple[float, int]]


def figures_of(check: DataCheck) -> dict[str, PartFigures]:
    """Part -> its figures."""
    return {part: _figures(part, cases, check) for part, cases in check.parts.items()}


def _figures(part: str, cases: Sequence[CheckedCase], check: DataCheck) -> PartFigures:
    facts = [case.facts for case in cases if case.facts.shape]
    labelled = [each for each in facts if each.foreground]
    counted = sum(each.num_counted for each in labelled)
    ends = [end for each in facts for five in each.intensity for end in (five[1], five[3])]
    groups = check.split.num_groups[part] if check.split else len({each.facts.group for each in cases})
    return PartFigures(
        num_cases=len(cases),
        num_groups=groups,
        sizes=_tally(["x".join(map(str, shape)) for shape in sorted(map(_in_ras, facts), key=_volume)]),
        spacings_mm=_tally(
            [
                "x".join(f"{mm:.3g}" for mm in spacing)
                for spacing in sorted((each.spacing_mm for each in facts if each.spacing_mm), key=_volume)
            ]
        ),
        orientations=_most_first([each.orientation for each in facts if each.orientation]),
        channels=_most_first([f"{each.num_channels} x {each.dtype}" for each in facts]),
        intensity=(min(ends), max(ends)) if ends else None,
        labels={
            name: (
                sum(each.foreground[name] for each in labelled) / max(counted, 1),
                sum(each.foreground[name] > 0 for each in labelled),
            )
            for name in (check.config.data.labels if labelled else ())
        },
    )


def _tally(texts: Sequence[str]) -> dict[str, int]:
    return dict(Counter(texts))


def _most_first(texts: Sequence[str]) -> dict[str, int]:
    return dict(Counter(texts).most_common())


def _volume(sizes: Sequence[float]) -> float:
    return float(np.prod(sizes))


def _in_ras(facts: CaseFacts) -> tuple[int, ...]:
    """A volume's size in R, A, S order; that of the file without geometry."""
    if facts.orientation is None:
        return facts.shape
    axes = [next(pair for pair in ("RL", "AP", "SI") if letter in pair) for letter in facts.orientation]
    return tuple(facts.shape[axes.index(pair)] for pair in ("RL", "AP", "SI"))


@dataclass(frozen=True)
class Histogram:
    """Histograms of the parts over the same bins.

    Attributes:
        edges: Ends of the bins.
        shares: Part -> share of each bin, 0 to 1.
    """

    edges: list[float]
    shares: dict[str, list[float]]


def intensity_histograms(check: DataCheck) -> list[Histogram]:
    """One per channel; every case counts the same. Values beyond the 0.5 and 99.5 percentiles of all cases are left out.

    Empty where no image can be read, or where cases have different numbers of channels.
    """
    cases = [case for case in check.cases if case.quantiles]
    if len({len(case.quantiles) for case in cases}) != 1:
        return []
    made = []
    for channel in range(len(cases[0].quantiles)):
        low = float(min(case.facts.intensity[channel][1] for case in cases))
        high = max(case.facts.intensity[channel][3] for case in cases)
        values = {
            part: np.concatenate([case.quantiles[channel] for case in members if case.quantiles] or [np.zeros(0)])
            for part, members in check.parts.items()
        }
        made.append(_histogram(values, low, high))
    return made


def size_histogram(check: DataCheck) -> Histogram | None:
    """Of the images' longest sides in pixels; None where there are so few that the table tells them."""
    sides = {
        part: np.array([max(case.facts.shape) for case in cases if case.facts.shape])
        for part, cases in check.parts.items()
    }
    every = np.concatenate([*sides.values(), np.zeros(0)])
    if len(np.unique(every)) <= _FEW:
        return None
    return _histogram(sides, float(every.min()), float(every.max()))


def _histogram(values: dict[str, np.ndarray], low: float, high: float) -> Histogram:
    if low.is_integer() and high.is_integer() and all((each == np.rint(each)).all() for each in values.values()):
        width = max(1, math.ceil((high - low + 1) / _BINS))  # bins of equally many whole numbers
        edges = np.arange(low, high + width + 1, width)
    else:
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    shares = {part: (np.histogram(each, edges)[0] / len(each)).tolist() for part, each in values.items() if len(each)}
    return Histogram(edges.tolist(), shares)


def as_json(check: DataCheck) -> dict[str, object]:
    """The whole check as plain data, for ``check.json``."""
    from r2seg import __version__

    data = check.config.data
    return {
        "r2seg": __version__,
        "name": check.config.name,
        "root": str(data.root),
        "layout": data.layout,
        "labels": {name: list(values) for name, values in data.labels.items()},
        "errors": [asdict(finding) for finding in check.errors],
        "warnings": [asdict(finding) for finding in check.warnings],
        "parts": {part: asdict(figures) for part, figures in figures_of(check).items()},
        "cases": [
            {
                "part": case.part,
                "images": list(map(str, case.case.images)),
                "label_files": list(map(str, case.case.labels)),
                "mask": case.case.mask and str(case.case.mask),
                **asdict(case.facts),
            }
            for case in check.cases
        ],
    }
