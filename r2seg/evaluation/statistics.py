"""How far the numbers can be trusted: jackknife intervals over groups, and paired comparison. Arrays in, numbers out.

The unit that is left out is the group (the patient): slices and eyes of one patient are alike, and pixels are not independent
samples. Nothing is drawn at random, so equal files give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95
MIN_GROUPS = 3  # fewer groups give no interval
FEW_GROUPS = 10  # fewer groups give an interval with a note
NUM_LARGEST = 5
MAX_EXACT = (
    60  # groups up to which the signed-rank test counts all sign changes instead of taking a normal distribution
)
Interval = tuple[float, float]
Range = tuple[float, float]
UNBOUNDED: Range = (-math.inf, math.inf)
Score = Callable[[Tensor], Tensor]


def jackknife(estimate: float, without: np.ndarray, within: Range = UNBOUNDED) -> Interval | None:
    """95 % interval of an estimate from the same estimate without each group in turn.

    θ ± t s with s² = (G - 1)/G Σ (θ_(g) - mean θ_(·))² and t the 97.5 % point of Student's distribution with G - 1 degrees of
    freedom: Tukey, Ann. Math. Statist. 29 (1958) 614; Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 11. For a
    mean of groups of equal size it is the usual t interval.

    Args:
        estimate: θ, of all groups.
        without: θ_(g), of all groups but one.
        within: Lowest and highest value that the estimate can take; the interval is cut there.

    Shape: (G,) -> two numbers, or None with fewer than three groups or where leaving one out leaves no number.
    """
    from scipy.stats import t

    num_groups = len(without)
    if num_groups < MIN_GROUPS or not (np.isfinite(without).all() and math.isfinite(estimate)):
        return None
    error = math.sqrt((num_groups - 1) / num_groups * float(((without - without.mean()) ** 2).sum()))
    half = float(t.ppf((1 + LEVEL) / 2, num_groups - 1)) * error
    return max(estimate - half, within[0]), min(estimate + half, within[1])


@dataclass(frozen=True)
class Estimate:
    """A number, its interval and what they are over.

    Attributes:
        value: NaN if nothing has a number.
        interval: 95 %, or None.
        num_groups: Groups that it is over.
    """

    value: float
    interval: Interval | None
    num_groups: int


def mean(values: np.ndarray, groups: Sequence[str], within: Range = UNBOUNDED) -> Estimate:
    """Mean over cases; values that are not finite are left out.

    Shape: (N,) values of cases in N groups' names.
    """
    valid = np.isfinite(values)
    if not valid.any():
        return Estimate(math.nan, None, 0)
    kept = values[valid]
    names, indices = np.unique(np.asarray(groups)[valid], return_inverse=True)
    sums, sizes = np.bincount(indices, kept), np.bincount(indices)
    # Groups without a case left have no mean: a single group.
    with np.errstate(invalid="ignore"):
        without = (kept.sum() - sums) / (kept.size - sizes)
    value = float(kept.mean())
    return Estimate(value, jackknife(value, without, within), len(names))


@dataclass(frozen=True)
class Resampled:
    """A pooled score of all groups, of each group alone, and of all groups but one.

    Shape: a number, (G,) and (G,).
    """

    total: float
    alone: np.ndarray
    without: np.ndarray

    @classmethod
    def of_sums(cls, evidence: np.ndarray, groups: Sequence[str], score: Score) -> Resampled:
        """Of evidence that adds up.

        Shape: (N, E) evidence of cases in N groups' names.
        """
        names, indices = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.zeros((len(names), evidence.shape[1]))
        np.add.at(sums, indices, evidence)
        total, alone, without = (score(torch.from_numpy(part)) for part in (sums.sum(0), sums, sums.sum(0) - sums))
        return cls(total.item(), alone.numpy(), without.numpy())

    @property
    def taking_part(self) -> np.ndarray:
        """Groups that hold something to score; others, such as those without a pixel of the label, do not count.

        Shape: (G,) bool.
        """
        return np.isfinite(self.alone) | (self.without != self.total)


def pooled(found: Resampled, within: Range = UNBOUNDED) -> Estimate:
    """A pooled score with its interval."""
    taking_part = found.taking_part
    return Estimate(found.total, jackknife(found.total, found.without[taking_part], within), int(taking_part.sum()))


def pooled_difference(first: Resampled, second: Resampled, within: Range = UNBOUNDED) -> Estimate:
    """Difference of two methods' pooled scores of the same groups, first minus second, with its interval."""
    taking_part = first.taking_part | second.taking_part
    difference = first.total - second.total
    interval = jackknife(difference, (first.without - second.without)[taking_part], within)
    return Estimate(difference, interval, int(taking_part.sum()))


@dataclass(frozen=True)
class Difference:
    """Two methods on the same cases, first minus second.

    A case that only one of them fails (its distance is infinite, or its score undefined although there was something to
    find) has no difference that could be averaged. It is left out of the mean, and ranks worst in the test.

    Attributes:
        mean: Of the differences of cases that are finite, with its interval over groups.
        p_value: Two-sided Wilcoxon signed-rank test on the groups' differences; NaN with fewer than two groups.
        num_cases: Cases that the mean is over.
        num_groups: Groups of the test.
        first_fails: Indices of the cases that only the first fails.
        second_fails: Indices of the cases that only the second fails.
        favours: 1 if the ranks favour the first, -1 if they favour the second, else 0. Never the one that fails more cases,
            nor against the mean.
        largest: Indices of the `NUM_LARGEST` cases that differ most, the largest difference first.
    """

    mean: Estimate
    p_value: float
    num_cases: int
    num_groups: int
    first_fails: tuple[int, ...]
    second_fails: tuple[int, ...]
    favours: int
    largest: tuple[int, ...]


def compare(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[str],
    *,
    better: str | None = "higher",
    nothing_to_find: tuple[np.ndarray, np.ndarray] | None = None,
    within: Range = UNBOUNDED,
) -> Difference:
    """Paired difference of two methods.

    Args:
        first, second: Scores of the same cases in the same order. Infinite ones are failures; an undefined score (NaN) beside a
            defined one too, unless `nothing_to_find` says that the method was right to predict nothing.
        groups: Of each case.
        better: "higher" or "lower", or None if neither is.
        nothing_to_find: Whether reference and prediction are both empty, for each method and case: such a case is
            undefined, and no failure. If the other method has a number there, it ranks worst.
        within: Lowest and highest value that a difference can take.

    Shape: (N,) each.
    """
    right = nothing_to_find or (np.zeros(len(first), bool), np.zeros(len(first), bool))
    ranks = [_rank_value(values, empty, better) for values, empty in zip((first, second), right, strict=True)]
    finite = np.isfinite(first) & np.isfinite(second)
    undefined = np.isnan(first) & np.isnan(second)
    with np.errstate(invalid="ignore"):  # both fail: infinity minus itself
        differences = np.where(finite, first, 0) - np.where(finite, second, 0)
        ranked = np.where(finite, differences, np.nan_to_num(ranks[0] - ranks[1], nan=0, posinf=np.inf, neginf=-np.inf))
    ranked[undefined] = np.nan
    estimate = mean(np.where(finite, differences, np.nan), groups, within)
    by_group = _group_differences(ranked, groups)
    sign = -1 if better == "lower" else 1
    fails = [np.flatnonzero(sign * ranked == -math.inf), np.flatnonzero(sign * ranked == math.inf)]
    order = np.argsort(-np.abs(np.nan_to_num(ranked, nan=0, posinf=np.inf, neginf=-np.inf)), kind="stable")
    return Difference(
        mean=estimate,
        p_value=signed_rank_p(by_group) if len(by_group) > 1 else math.nan,
        num_cases=int(finite.sum()),
        num_groups=len(by_group),
        first_fails=tuple(fails[0].tolist()),
        second_fails=tuple(fails[1].tolist()),
        favours=0 if better is None else _favoured(sign * by_group, sign * estimate.value, *map(len, fails)),
        largest=tuple(int(i) for i in order[:NUM_LARGEST] if not np.isnan(ranked[i])),
    )


def _rank_value(values: np.ndarray, right: np.ndarray, better: str | None) -> np.ndarray:
    """How scores that are not finite rank against one that is (0): right to predict nothing is best, a failure worst."""
    worst = math.inf if better == "lower" else -math.inf
    return np.where(np.isfinite(values), 0.0, np.where(np.isnan(values) & right, -worst, worst))


def _group_differences(differences: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Mean difference of each group; infinite where failures of one side outnumber those of the other.

    Shape: (N,) -> (G,), groups without any difference left out.
    """
    defined = ~np.isnan(differences)
    _, indices = np.unique(np.asarray(groups)[defined], return_inverse=True)
    kept = differences[defined]
    found = []
    for group in range(indices.max() + 1 if len(indices) else 0):
        own = kept[indices == group]
        excess = (own == math.inf).sum() - (own == -math.inf).sum()
        numbers = own[np.isfinite(own)]
        found.append(math.copysign(math.inf, excess) if excess else float(numbers.mean()) if len(numbers) else 0.0)
    return np.array(found)


def _favoured(ranked: np.ndarray, mean_difference: float, first_fails: int, second_fails: int) -> int:
    """Which method the signed ranks favour, unless it fails more cases or its mean says otherwise."""
    positive, negative = _signed_ranks(ranked)
    sign = int(np.sign(positive - negative))
    if sign * (second_fails - first_fails) < 0 or sign * mean_difference < 0:
        return 0
    return sign


def _signed_ranks(differences: np.ndarray) -> tuple[float, float]:
    """Sums of the ranks of positive and of negative differences; zeros take no part, equal sizes share their ranks."""
    from scipy.stats import rankdata

    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    return float(ranks[kept > 0].sum()), float(ranks[kept < 0].sum())


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945), also with ties and infinite differences.

    The share of all sign changes whose rank sum is as far from the middle; exact for up to `MAX_EXACT` differences that
    are not zero, so never below 2/2^n. With more, a normal distribution with its correction for ties.

    Shape: (n,) -> a number; 1 if all differences are zero.
    """
    from scipy.stats import norm, rankdata

    kept = differences[differences != 0]
    if not len(kept):
        return 1.0
    doubled = np.round(2 * rankdata(np.abs(kept))).astype(int)  # shared ranks are halves
    total = int(doubled.sum())
    smaller = min(int(doubled[kept > 0].sum()), int(doubled[kept < 0].sum()))
    if len(kept) > MAX_EXACT:
        spread = math.sqrt(float((doubled.astype(float) ** 2).sum())) / 2
        return min(1.0, 2 * float(norm.cdf((smaller - total / 2) / spread)))
    ways = np.zeros(total + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    return min(1.0, 2 * float(ways[: smaller + 1].sum() / 2.0 ** len(kept)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: below α, they hold together with an error of at most α.

    Holm, Scand. J. Statist. 6 (1979) 65: the i-th smallest of m is multiplied by m - i + 1, and no smaller one may exceed it.
    Tests that could not be made (NaN) are not counted.

    Shape: m numbers -> m numbers in the same order.
    """
    made = [index for index, p in enumerate(p_values) if not math.isnan(p)]
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(made, key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(made) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted
