"""Scores of probability maps: how well they rank pixels (ROC, precision-recall) and how well they are calibrated.

Everything follows from one histogram per label: reference and other pixels at each of the 65536 levels that a probability
file can hold (1/65535 apart). Histograms add up over cases, so pooled curves of any number of volumes are exact at the
precision of the files and need no memory for their pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from r2seg.metrics.counts import Counts, memory_order

LEVELS = 65536
NUM_BINS = 15  # of the calibration
_CHUNK = 1 << 22


def probability_histogram(probability: Tensor, reference: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pixels outside (row 0) and inside (row 1) the reference at each level of probability.

    Args:
        probability: Probability of one label, 0 to 1; rounded to the nearest of 65536 levels.
        reference: Mask of the label, non-zero inside.
        mask: Pixels to count, non-zero inside.

    Shape: (*S) each -> (2, 65536) int64, on the probability's device. Adds up over cases.

    Raises:
        ValueError: Shapes differ, or a counted probability is not between 0 and 1.
    """
    for name, tensor in (("reference", reference), ("mask", mask)):
        if tensor is not None and tensor.shape != probability.shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} against probability of {tuple(probability.shape)}")
    order = memory_order(probability)
    flat, inside = probability.permute(order).reshape(-1), reference.permute(order).reshape(-1)
    counted = None if mask is None else mask.permute(order).reshape(-1) != 0
    histogram = torch.zeros(2 * LEVELS, dtype=torch.int64, device=probability.device)
    for start in range(0, flat.numel(), _CHUNK):
        part = slice(start, start + _CHUNK)
        values, positive = flat[part].float(), inside[part] != 0
        if counted is not None:
            values, positive = values[counted[part]], positive[counted[part]]
        if not ((values >= 0) & (values <= 1)).all():
            wrong = values[~((values >= 0) & (values <= 1))][0].item()
            raise ValueError(
                f"a probability is {wrong:g}: expected 0 to 1 (logits go through softmax or sigmoid first)"
            )
        code = (values * (LEVELS - 1)).round().to(torch.int32) + positive * LEVELS
        histogram += torch.bincount(code, minlength=2 * LEVELS)
    return histogram.view(2, LEVELS)


def threshold_curve(histogram: Tensor) -> Counts:
    """Confusion counts at every threshold i / 65535, where a pixel is predicted from the threshold upwards.

    Shape: (2, 65536) -> four of (65537,) int64; at the last one nothing is predicted.
    """
    negative, positive = histogram.cpu()
    above = [torch.cat([part.flip(0).cumsum(0).flip(0), part.new_zeros(1)]) for part in (positive, negative)]
    tp, fp = above
    return Counts(tp=tp, fp=fp, fn=positive.sum() - tp, tn=negative.sum() - fp)


def counts_at(histogram: Tensor, threshold: float) -> Counts:
    """Confusion counts where pixels with at least this probability are predicted.

    Shape: (2, 65536) -> four of () int64.
    """
    # Levels were rounded, so a threshold falls on its own level: 0.5 takes level 32768, the first one not below it.
    index = int(torch.tensor(threshold * (LEVELS - 1), dtype=torch.float64).ceil().clamp(0, LEVELS))
    curve = threshold_curve(histogram)
    return Counts(curve.tp[index], curve.fp[index], curve.fn[index], curve.tn[index])


def best_threshold(histogram: Tensor) -> tuple[float, float]:
    """Threshold with the highest pooled Dice, the lowest of equal ones, and that Dice.

    On the cases that are scored this is an oracle, not a result: choose on validation cases.

    Raises:
        ValueError: The reference has no pixel, so that no threshold is better than another.
    """
    if not histogram[1].sum():
        raise ValueError("the reference is empty: no threshold can be chosen on it")
    curve = threshold_curve(histogram)
    scores = 2 * curve.tp.double() / (2 * curve.tp + curve.fp + curve.fn)
    best = int(scores.argmax())
    return best / (LEVELS - 1), float(scores[best])


def roc_auc(histogram: Tensor) -> Tensor:
    """Area under the ROC curve: the chance that a reference pixel has a higher probability than another, ties half.

    NaN where all pixels or none are of the reference.

    Shape: (2, 65536) -> () float64.
    """
    negative, positive = histogram.cpu().to(torch.float64)
    below = negative.cumsum(0) - negative / 2
    return (positive * below).sum() / (positive.sum() * negative.sum())


def average_precision(histogram: Tensor) -> Tensor:
    """Area under the precision-recall curve, as the sum of precision times the step in recall.

    Never interpolated, as scikit-learn's; NaN where no pixel is of the reference.

    Shape: (2, 65536) -> () float64.
    """
    curve = threshold_curve(histogram)
    tp, fp = curve.tp[:-1].double(), curve.fp[:-1].double()
    step = histogram[1].cpu().to(torch.float64)
    return (step * tp / (tp + fp).clamp(min=1)).sum() / step.sum()


def calibration_error(histogram: Tensor) -> Tensor:
    """Expected calibration error of a label: |share of reference pixels - mean probability|, averaged over pixels.

    Probabilities fall in n = 15 equal bins, open at the left: (0, 1/n], (1/n, 2/n], … and 0 in the first. Guo et al., ICML 2017,
    on the probability of the label. Easy background makes it small: compare it on the same field of view only.

    Shape: (2, 65536) -> () float64; NaN where no pixel was counted.
    """
    negative, positive = histogram.cpu().to(torch.float64)
    level = torch.arange(LEVELS)
    # In integers: 0.2 * 15 is not 3 in floats, and the bins' edges would move.
    bins = torch.div(level * NUM_BINS + LEVELS - 2, LEVELS - 1, rounding_mode="floor").sub(1).clamp(min=0)
    sums = torch.zeros(2, NUM_BINS, dtype=torch.float64)
    sums[0].index_add_(0, bins, positive)
    sums[1].index_add_(0, bins, (negative + positive) * level / (LEVELS - 1))
    return (sums[0] - sums[1]).abs().sum() / (negative + positive).sum()
