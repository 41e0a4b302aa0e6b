"""The measures by name: what each needs from a prediction and its reference, how it is scored, and what it means.

A family gathers one small vector of evidence for every case and label (such as the four confusion counts); its measures are
functions of that vector. Where evidence adds up, the sum over cases gives the pooled score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from r2seg import metrics
from r2seg.errors import UserError
from r2seg.metrics import Counts, LevelCounts


@dataclass(frozen=True)
class Pair:
    """One prediction and its reference in memory, as class indices.

    Attributes:
        prediction: Class indices; 0 where a pixel is not counted.
        reference: Class indices, 255 where a pixel is not counted.
        num_labels: K.
        steps_mm: Steps along each axis as columns, in mm; None for pictures, whose distances are in pixels.
        probabilities: One map per label, or None.
        tolerance_mm: Tolerance of the surface Dice; in pixels for pictures.
        overlapping: Whether the maps hold one bit per label instead of class indices, see `metrics.label_mask`.

    Shape: (*S) for the maps, (K, *S) for probabilities, (d, d) for steps.
    """

    prediction: Tensor
    reference: Tensor
    num_labels: int
    steps_mm: Tensor | None = None
    probabilities: Tensor | None = None
    tolerance_mm: float = 1.0
    overlapping: bool = False

    @cached_property
    def counts(self) -> Counts:
        count = metrics.count_overlapping if self.overlapping else metrics.count_confusion
        return count(self.prediction, self.reference, self.num_labels).to("cpu")

    @property
    def voxel_ml(self) -> float:
        if self.steps_mm is None or len(self.steps_mm) != 3:
            return float("nan")
        return float(torch.linalg.det(self.steps_mm).abs()) / 1000

    def masks(self, label: int) -> tuple[Tensor, Tensor]:
        """Prediction and reference of one label."""
        prediction = metrics.label_mask(self.prediction, label, self.overlapping)
        return prediction, metrics.label_mask(self.reference, label, self.overlapping)


def _counts(pair: Pair) -> Tensor:
    return torch.stack([pair.counts.tp, pair.counts.fp, pair.counts.fn, pair.counts.tn], dim=-1)


def _volumes(pair: Pair) -> Tensor:
    predicted, reference = pair.counts.tp + pair.counts.fp, pair.counts.tp + pair.counts.fn
    return torch.stack([predicted, reference], dim=-1).double() * pair.voxel_ml


def _surfaces(pair: Pair) -> Tensor:
    rows = []
    for label in range(1, pair.num_labels + 1):
        distances = metrics.surface_distances(*pair.masks(label), pair.steps_mm)
        rows.append(
            [
                metrics.hausdorff(distances),
                metrics.hausdorff(distances, percentile=95),
                metrics.average_surface_distance(distances),
                metrics.surface_dice(distances, pair.tolerance_mm),
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def _centerlines(pair: Pair) -> Tensor:
    return torch.stack([metrics.centerline_counts(*pair.masks(label)) for label in range(1, pair.num_labels + 1)])


def _components(pair: Pair) -> Tensor:
    return torch.stack([metrics.count_components(*pair.masks(label)) for label in range(1, pair.num_labels + 1)])


def _probabilities(pair: Pair) -> Tensor:
    if pair.probabilities is None:
        raise ValueError("these measures need probabilities, and the pair has none")
    counted = pair.reference != metrics.IGNORE
    return torch.stack(
        [
            metrics.probability_histogram(probability, pair.masks(label)[1], counted).cpu()
            for label, probability in enumerate(pair.probabilities, start=1)
        ]
    )


def exact_histograms(pair: Pair) -> list[metrics.Histogram]:
    """Histogram of each label's probabilities without rounding: for files, which may hold any real number."""
    if pair.probabilities is None:
        return []
    counted = pair.reference != metrics.IGNORE
    return [
        metrics.probability_counts(probability, pair.masks(label)[1], counted)
        for label, probability in enumerate(pair.probabilities, start=1)
    ]


@dataclass(frozen=True)
class Family:
    """Measures that share their evidence.

    Attributes:
        evidence: Pair -> (K, *E), one entry per label.
        columns: Names of the evidence's entries, as columns of the table of cases.
        adds_up: Whether the evidence summed over cases is that of all their pixels together.
    """

    evidence: Callable[[Pair], Tensor]
    columns: tuple[str, ...] = ()
    adds_up: bool = True


@dataclass(frozen=True)
class Measure:
    """One number and its meaning.

    Attributes:
        family: Key of `FAMILIES`.
        title: Its name in tables.
        formula: Its definition in reports, in plain text.
        score: Evidence (..., *E) -> (...) float64; of probabilities also `LevelCounts` -> ().
        better: "higher" or "lower", or None if neither is.
        unit: "mm" stands for pixels where all cases are pictures.
        pooled: Whether a score of summed evidence has a meaning.
        range: Lowest and highest value; intervals are cut there.
    """

    family: str
    title: str
    formula: str
    score: Callable[[Any], Tensor]
    better: str | None = "higher"
    unit: str = ""
    pooled: bool = True
    range: tuple[float, float] = (0.0, 1.0)

    @property
    def range_of_differences(self) -> tuple[float, float]:
        """Lowest and highest difference of two values."""
        width = self.range[1] - self.range[0]
        return -width, width


def _of_counts(score: Callable[[Counts], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda evidence: score(Counts(*evidence.unbind(-1)))


def _column(index: int) -> Callable[[Tensor], Tensor]:
    return lambda evidence: evidence[..., index].to(torch.float64)


def _of_histogram(score: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def each(evidence: Tensor | LevelCounts) -> Tensor:
        if isinstance(evidence, LevelCounts):
            return score(evidence)
        flat = evidence.reshape(-1, *evidence.shape[-2:])
        return torch.stack([score(histogram) for histogram in flat]).reshape(evidence.shape[:-2])

    return each


_FROM_ZERO = (0.0, math.inf)

FAMILIES = {
    "counts": Family(_counts, ("tp", "fp", "fn", "tn")),
    "volumes": Family(_volumes, adds_up=False),
    "surfaces": Family(_surfaces, adds_up=False),
    "components": Family(_components, ("components_found", "components_missed", "components_false")),
    "centerlines": Family(_centerlines),
    "probabilities": Family(_probabilities),
}

MEASURES = {
    "dice": Measure("counts", "Dice", "2 TP / (2 TP + FP + FN), the F1 score", _of_counts(metrics.dice)),
    "iou": Measure("counts", "IoU", "TP / (TP + FP + FN) = D / (2 − D), Jaccard", _of_counts(metrics.iou)),
    "sensitivity": Measure("counts", "Sensitivity", "TP / (TP + FN), recall", _of_counts(metrics.sensitivity)),
    "specificity": Measure("counts", "Specificity", "TN / (TN + FP)", _of_counts(metrics.specificity)),
    "precision": Measure("counts", "Precision", "TP / (TP + FP)", _of_counts(metrics.precision)),
    "accuracy": Measure("counts", "Accuracy", "(TP + TN) / all counted pixels", _of_counts(metrics.accuracy)),
    "balanced_accuracy": Measure(
        "counts", "Balanced accuracy", "(sensitivity + specificity) / 2", _of_counts(metrics.balanced_accuracy)
    ),
    "mcc": Measure(
        "counts",
        "MCC",
        "(TP TN − FP FN) / √((TP + FP) (TP + FN) (TN + FP) (TN + FN))",
        _of_counts(metrics.matthews),
        range=(-1.0, 1.0),
    ),
    "threshold_jaccard": Measure(
        "counts",
        "Threshold Jaccard",
        "IoU of a case, 0 where it is below 0.65 (ISIC 2018)",
        _of_counts(metrics.threshold_jaccard),
        pooled=False,
    ),
    "volume_ml": Measure(
        "volumes",
        "Volume",
        "predicted voxels × voxel volume",
        _column(0),
        better=None,
        unit="mL",
        pooled=False,
        range=_FROM_ZERO,
    ),
    "reference_volume_ml": Measure(
        "volumes",
        "Reference volume",
        "reference voxels × voxel volume",
        _column(1),
        better=None,
        unit="mL",
        pooled=False,
        range=_FROM_ZERO,
    ),
    "volume_difference_ml": Measure(
        "volumes",
        "Volume difference",
        "predicted − reference volume; errors of both signs cancel in the mean",
        lambda evidence: evidence[..., 0] - evidence[..., 1],
        better=None,
        unit="mL",
        pooled=False,
        range=(-math.inf, math.inf),
    ),
    "hausdorff": Measure(
        "surfaces",
        "Hausdorff",
        "largest distance from either surface to the other; ∞ where one is empty",
        _column(0),
        better="lower",
        unit="mm",
        pooled=False,
        range=_FROM_ZERO,
    ),
    "hd95": Measure(
        "surfaces",
        "HD95",
        "larger of the two directions' 95th percentile of surface distances; ∞ where one is empty",
        _column(1),
        better="lower",
        unit="mm",
        pooled=False,
        range=_FROM_ZERO,
    ),
    "assd": Measure(
        "surfaces",
        "Average surface distance",
        "mean distance of both surfaces' pixels to the other surface; ∞ where one is empty",
        _column(2),
        better="lower",
        unit="mm",
        pooled=False,
        range=_FROM_ZERO,
    ),
    "surface_dice": Measure(
        "surfaces",
        "Surface Dice",
        "share of both surfaces' pixels within the tolerance of the other surface; equal to it (up to 0.01 %) is within",
        _column(3),
        pooled=False,
    ),
    "lesion_f1": Measure(
        "components",
        "Lesion F1",
        "2 found / (2 found + missed + false) over connected components; one shared pixel is enough",
        metrics.detection_f1,
    ),
    "cldice": Measure(
        "centerlines",
        "clDice",
        "harmonic mean of the shares of each centreline inside the other mask",
        metrics.centerline_dice,
    ),
    "roc_auc": Measure(
        "probabilities",
        "ROC-AUC",
        "chance that a reference pixel has a higher probability than another pixel, ties half",
        _of_histogram(metrics.roc_auc),
    ),
    "pr_auc": Measure(
        "probabilities",
        "PR-AUC",
        "average precision: Σ precision × step of recall, not interpolated",
        _of_histogram(metrics.average_precision),
    ),
    "ece": Measure(
        "probabilities",
        "Calibration error",
        "mean over pixels of |share of reference pixels − mean probability| in 15 equal bins",
        _of_histogram(metrics.calibration_error),
        better="lower",
    ),
}


def choose_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Names of measures, in the table's order, from names of measures and families; "all" is every one.

    Raises:
        UserError: A name is neither.
    """
    chosen: set[str] = set()
    for name in names:
        own = {key for key, measure in MEASURES.items() if name in (key, measure.family, "all")}
        if not own:
            raise UserError(
                f"{name!r} is not a measure; families: all, {', '.join(FAMILIES)}; measures: {', '.join(MEASURES)}"
            )
        chosen |= own
    return tuple(key for key in MEASURES if key in chosen)
