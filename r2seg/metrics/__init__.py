"""Scores of segmentations, on tensors. Files, tables and intervals are the work of ``r2seg.evaluation``.

Label maps hold class indices: 0 background, 1..K the labels, 255 not counted. One rule holds for every score: if its
denominator is empty there is nothing to score and it is NaN, so that a mean has to say how many numbers it is over. For
Dice and IoU that means empty against empty is NaN, and an empty reference with a prediction is 0.

Counts are computed on the tensors' device; surfaces, skeletons and components on the CPU, by scipy and scikit-image.
"""

from r2seg.metrics.counts import (
    IGNORE,
    Counts,
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    count_confusion,
    count_overlapping,
    dice,
    iou,
    label_mask,
    matthews,
    precision,
    sensitivity,
    specificity,
    threshold_jaccard,
)
from r2seg.metrics.probabilities import (
    Histogram,
    LevelCounts,
    add_histograms,
    average_precision,
    best_threshold,
    calibration_error,
    counts_at,
    probability_counts,
    probability_histogram,
    roc_auc,
    threshold_curve,
)
from r2seg.metrics.structures import centerline_counts, centerline_dice, count_components, detection_f1
from r2seg.metrics.surfaces import (
    SurfaceDistances,
    average_surface_distance,
    hausdorff,
    surface_dice,
    surface_distances,
)

__all__ = [
    "IGNORE",
    "Counts",
    "Histogram",
    "LevelCounts",
    "SurfaceDistances",
    "accuracy",
    "add_histograms",
    "average_precision",
    "average_surface_distance",
    "balanced_accuracy",
    "best_threshold",
    "calibration_error",
    "centerline_counts",
    "centerline_dice",
    "confusion_matrix",
    "count_components",
    "count_confusion",
    "count_overlapping",
    "counts_at",
    "detection_f1",
    "dice",
    "hausdorff",
    "iou",
    "label_mask",
    "matthews",
    "precision",
    "probability_counts",
    "probability_histogram",
    "roc_auc",
    "sensitivity",
    "specificity",
    "surface_dice",
    "surface_distances",
    "threshold_curve",
    "threshold_jaccard",
]
