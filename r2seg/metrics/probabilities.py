"""Scores of probability maps: how well they rank pixels (ROC, precision-recall) and how well they are calibrated.

Everything follows from one histogram per label: reference and other pixels at each level of probability. Files that we write
hold 65536 levels (1/65535 apart), and their histogram is a tensor of that size. Files of other tools may hold any real number;
for them every distinct value is a level (`LevelCounts`), up to four million per label; beyond, neighbours are joined (see `joined`).
Histograms add up over cases, so pooled curves of any number of volumes are exact and need no memory for their pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from r2seg.metrics.counts import Counts, memory_order

LEVELS = 65536
NUM_BINS = 15  # of the calibration
MAX_LEVELS = 1 << 22  # 100 MB per histogram
_CHUNK = 1 << 22


@dataclass(frozen=True)
class LevelCounts:
    """Pixels outside (row 0) and inside (row 1) the reference at each distinct probability.

    Attributes:
        levels: Ascending.
        counts: One column per level.

    Shape: (L,) float64 and (2, L) int64, on the CPU.
    """

    levels: Tensor
    counts: Tensor

    @property
    def negative(self) -> Tensor:
        return self.counts[0]

    @property
    def positive(self) -> Tensor:
        return self.counts[1]


Histogram: TypeAlias = Tensor | LevelCounts


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
    histogram = torch.zeros(2 * LEVELS, dtype=torch.int64, device=probability.device)
    for values, positive in _parts(probability, reference, mask):
        code = (values.float() * (LEVELS - 1)).round().to(torch.int32) + positive * LEVELS
        histogram += torch.bincount(code, minlength=2 * LEVELS)
    return histogram.view(2, LEVELS)


def _parts(
    probability: Tensor, reference: Tensor, mask: Tensor | None, size: int = _CHUNK
) -> Iterator[tuple[Tensor, Tensor]]:
    """Counted probabilities and whether they are of the reference, a few million at a time.

    Raises:
        ValueError: Shapes differ, or a counted probability is not between 0 and 1.
    """
    for name, tensor in (("reference", reference), ("mask", mask)):
        if tensor is not None and tensor.shape != probability.shape:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} against probability of {tuple(probability.shape)}")
    order = memory_order(probability)
    flat, inside = probability.permute(order).reshape(-1), reference.permute(order).reshape(-1)
    counted = None if mask is None else mask.permute(order).reshape(-1) != 0
    for start in range(0, flat.numel(), size):
        part = slice(start, start + size)
        values, positive = flat[part], inside[part] != 0
        if counted is not None:
            values, positive = values[counted[part]], positive[counted[part]]
        if not ((values >= 0) & (values <= 1)).all():
            wrong = values[~((values >= 0) & (values <= 1))][0].item()
            raise ValueError(
                f"a probability is {wrong:g}: expected 0 to 1 (logits go through softmax or sigmoid first)"
            )
        yield values, positive


def probability_counts(probability: Tensor, reference: Tensor, mask: Tensor | None = None) -> Histogram:
    """Pixels outside and inside the reference at each level of probability, without rounding.

    Arguments and errors as for `probability_histogram`.

    Returns:
        The histogram of `probability_histogram` where all values are multiples of 1/65535, else `LevelCounts`. Either adds
        up over cases with `add_histograms`.
    """
    dense = torch.zeros(2, LEVELS, dtype=torch.int64)
    for values, positive in _parts(probability, reference, mask):
        level = (values.double() * (LEVELS - 1)).round()
        if not _on_level(values, level).all():
            break
        code = level.to(torch.int32) + positive * LEVELS
        dense += torch.bincount(code, minlength=2 * LEVELS).view(2, LEVELS).cpu()
    else:
        return dense
    total = LevelCounts(torch.zeros(0, dtype=torch.float64), torch.zeros(2, 0, dtype=torch.int64))
    for values, positive in _parts(probability, reference, mask, 4 * _CHUNK):  # few large parts: less to merge
        for side, chosen in enumerate((~positive, positive)):
            distinct, numbers = np.unique(values[chosen].cpu().numpy(), return_counts=True)
            counts = torch.zeros(2, len(distinct), dtype=torch.int64)
            counts[side] = torch.from_numpy(numbers)
            total = _merged(total, LevelCounts(torch.from_numpy(distinct.astype(np.float64)), counts))
    return total


def _on_level(values: Tensor, level: Tensor) -> Tensor:
    """Whether each value is its level over 65535, to the last bit, as readers compute it."""
    step = torch.tensor(1 / (LEVELS - 1), dtype=torch.float64)
    computed = (
        level / (LEVELS - 1),
        level * step,
        level * step.float().double(),  # a scale that a header holds in float32
        (level.float() * step.float()).double(),
    )
    on_level = torch.zeros_like(values, dtype=torch.bool)
    for candidate in computed:
        on_level |= values == candidate.to(values.dtype)
    return on_level


def add_histograms(first: Histogram, second: Histogram) -> Histogram:
    """Histogram of the pixels of both; at most `MAX_LEVELS` levels."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first + second
    return _merged(with_levels(first), with_levels(second))


def _merged(first: LevelCounts, second: LevelCounts) -> LevelCounts:
    """Histogram of the pixels of both; at most `MAX_LEVELS` levels."""
    levels = torch.from_numpy(np.union1d(first.levels.numpy(), second.levels.numpy()))
    counts = torch.zeros(2, len(levels), dtype=torch.int64)
    for side in (first, second):
        counts[:, torch.searchsorted(levels, side.levels)] += side.counts
    return joined(LevelCounts(levels, counts), MAX_LEVELS)


def with_levels(histogram: Histogram) -> LevelCounts:
    """The histogram with its levels stated; those that hold no pixel are left out."""
    if isinstance(histogram, LevelCounts):
        return histogram
    held = histogram.cpu().any(dim=0).nonzero().squeeze(1)
    return LevelCounts(held.double() / (LEVELS - 1), histogram.cpu()[:, held])


def joined(histogram: LevelCounts, most: int) -> LevelCounts:
    """The histogram with at most ``most`` levels: neighbours are joined into half as many cells of equal weight.

    Joining makes ties of pairs of pixels in one cell, which has the level of its lowest value. A cell holds at most 6 / most of
    the pixels outside and of those inside the reference, which bounds the change of the ROC's area; and its pixels are at
    most 6 ln(n) / most of those above it, which bounds that of the average precision. For `MAX_LEVELS`: 2e-6 and 3e-5.
    """
    if len(histogram.levels) <= most:
        return histogram
    counts = histogram.counts.double()
    pixels = counts.sum(dim=0)
    above = pixels.flip(0).cumsum(0).flip(0)
    weight = (counts / counts.sum(dim=1, keepdim=True).clamp(min=1)).sum(dim=0)
    weight += pixels / above / torch.log1p(above[0])
    cell = ((weight.cumsum(0) - weight) / weight.sum() * (most // 2)).long()
    _, where = torch.unique_consecutive(cell, return_inverse=True)
    first = torch.cat([torch.ones(1, dtype=torch.bool), where[1:] != where[:-1]])
    sums = torch.zeros(2, int(where[-1]) + 1, dtype=torch.int64).index_add_(1, where, histogram.counts)
    return LevelCounts(histogram.levels[first], sums)


def rebinned(histogram: LevelCounts, levels: Tensor) -> Tensor:
    """Counts on other levels: each pixel at the highest of them that is not above its own, or at the lowest.

    Shape: (L,) levels -> (2, L) int64.
    """
    where = torch.searchsorted(levels, histogram.levels, right=True).sub(1).clamp(min=0)
    return torch.zeros(2, len(levels), dtype=torch.int64).index_add_(1, where, histogram.counts)


def threshold_curve(histogram: Histogram) -> Counts:
    """Confusion counts at every level as a threshold, where a pixel is predicted from the threshold upwards.

    Shape: L levels -> four of (L + 1,) int64; at the last one nothing is predicted.
    """
    negative, positive = _counts(histogram)
    above = [torch.cat([part.flip(0).cumsum(0).flip(0), part.new_zeros(1)]) for part in (positive, negative)]
    tp, fp = above
    return Counts(tp=tp, fp=fp, fn=positive.sum() - tp, tn=negative.sum() - fp)


def counts_at(histogram: Histogram, threshold: float) -> Counts:
    """Confusion counts where pixels with at least this probability are predicted.

    Shape: L levels -> four of () int64.
    """
    if isinstance(histogram, Tensor):
        # Levels were rounded, so a threshold falls on its own level: 0.5 takes level 32768, the first one not below it.
        index = int(torch.tensor(threshold * (LEVELS - 1), dtype=torch.float64).ceil().clamp(0, LEVELS))
    else:
        index = int(torch.searchsorted(histogram.levels, threshold))
    curve = threshold_curve(histogram)
    return Counts(curve.tp[index], curve.fp[index], curve.fn[index], curve.tn[index])


def best_threshold(histogram: Histogram) -> tuple[float, float]:
    """Threshold with the highest pooled Dice, the lowest of equal ones, and that Dice.

    On the cases that are scored this is an oracle, not a result: choose on validation cases.

    Raises:
        ValueError: The reference has no pixel, so that no threshold is better than another.
    """
    _, positive = _counts(histogram)
    if not positive.sum():
        raise ValueError("the reference is empty: no threshold can be chosen on it")
    curve = threshold_curve(histogram)
    scores = 2 * curve.tp.double() / (2 * curve.tp + curve.fp + curve.fn)
    best = int(scores.argmax())
    level = best / (LEVELS - 1) if isinstance(histogram, Tensor) else float(histogram.levels[best])
    return level, float(scores[best])


def roc_auc(histogram: Histogram) -> Tensor:
    """Area under the ROC curve: the chance that a reference pixel has a higher probability than another, ties half.

    NaN where all pixels or none are of the reference.

    Shape: L levels -> () float64.
    """
    negative, positive = (part.to(torch.float64) for part in _counts(histogram))
    below = negative.cumsum(0) - negative / 2
    return (positive * below).sum() / (positive.sum() * negative.sum())


def average_precision(histogram: Histogram) -> Tensor:
    """Area under the precision-recall curve, as the sum of precision times the step in recall.

    Never interpolated, as scikit-learn's; NaN where no pixel is of the reference.

    Shape: L levels -> () float64.
    """
    curve = threshold_curve(histogram)
    tp, fp = curve.tp[:-1].double(), curve.fp[:-1].double()
    step = _counts(histogram)[1].to(torch.float64)
    return (step * tp / (tp + fp).clamp(min=1)).sum() / step.sum()


def calibration_error(histogram: Histogram) -> Tensor:
    """Expected calibration error of a label: |share of reference pixels - mean probability|, averaged over pixels.

    Probabilities fall in n = 15 equal bins, open at the left: (0, 1/n], (1/n, 2/n], … and 0 in the first. Guo et al., ICML 2017,
    on the probability of the label. Easy background makes it small: compare it on the same field of view only.

    Shape: L levels -> () float64; NaN where no pixel was counted.
    """
    negative, positive = (part.to(torch.float64) for part in _counts(histogram))
    if isinstance(histogram, Tensor):
        index = torch.arange(LEVELS)
        level = index.double() / (LEVELS - 1)
        # In integers: 0.2 * 15 is not 3 in floats, and the bins' edges would move.
        bins = torch.div(index * NUM_BINS + LEVELS - 2, LEVELS - 1, rounding_mode="floor").sub(1).clamp(min=0)
    else:
        level = histogram.levels
        edges = torch.linspace(0, 1, NUM_BINS + 1, dtype=torch.float64)
        bins = torch.bucketize(level, edges).sub(1).clamp(min=0)
    sums = torch.zeros(2, NUM_BINS, dtype=torch.float64)
    sums[0].index_add_(0, bins, positive)
    sums[1].index_add_(0, bins, (negative + positive) * level)
    return (sums[0] - sums[1]).abs().sum() / (negative + positive).sum()


def _counts(histogram: Histogram) -> tuple[Tensor, Tensor]:
    negative, positive = (histogram if isinstance(histogram, Tensor) else histogram.counts).cpu()
    return negative, positive
