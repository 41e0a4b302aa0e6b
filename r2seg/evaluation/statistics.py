"""How far the numbers can be trusted: bootstrap intervals over groups and paired comparison. Arrays in, numbers out.

The unit that is drawn is the group (the patient): slices and eyes of one patient are alike, and pixels are not independent samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NUM_DRAWS = 2000
LEVEL = 0.95
NUM_LARGEST = 5
Interval = tuple[float, float]


@dataclass(frozen=True)
class Bootstrap:
    """Draws of groups with replacement, the same ones for every number of a report.

    Attributes:
        groups: Group of each case, as indices 0..G-1.
        weights: How often each draw holds each group.

    Shape: (N,) int64 and (B, G) float64.
    """

    groups: np.ndarray
    weights: np.ndarray

    @classmethod
    def over(cls, groups: list[str], *, seed: int) -> Bootstrap:
        """Draws over the named groups of the cases."""
        names, indices = np.unique(np.asarray(groups), return_inverse=True)
        draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), NUM_DRAWS)
        return cls(indices, draws.astype(np.float64))

    @property
    def num_groups(self) -> int:
        return self.weights.shape[1]

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean over the cases of each draw; values that are not finite are left out.

        Shape: (N,) -> (B,).
        """
        valid = np.isfinite(values)
        sums = np.bincount(self.groups[valid], values[valid], minlength=self.num_groups)
        sizes = np.bincount(self.groups[valid], minlength=self.num_groups)
        with np.errstate(invalid="ignore"):
            return (self.weights @ sums) / (self.weights @ sizes)

    def pooled(self, evidence: np.ndarray, score: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Score of the summed evidence of each draw.

        Shape: (N, E) -> (B,).
        """
        sums = np.zeros((self.num_groups, evidence.shape[1]))
        np.add.at(sums, self.groups, evidence)
        return score(torch.from_numpy(self.weights @ sums)).numpy()


def interval(draws: np.ndarray) -> Interval | None:
    """95 % percentile interval of bootstrap draws; None with fewer than two finite draws."""
    draws = draws[np.isfinite(draws)]
    if len(draws) < 2:
        return None
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """Two methods on the same cases, first minus second.

    Attributes:
        mean: Of the differences of cases; NaN without a case.
        interval: 95 % bootstrap over groups, or None with fewer than two groups.
        p_value: Two-sided Wilcoxon signed-rank test on the groups' mean differences; NaN with fewer than two groups.
        num_cases: Cases that both methods score with a finite number.
        num_groups: Groups of these.
        largest: Indices of the `NUM_LARGEST` cases that differ most, the largest difference first.
    """

    mean: float
    interval: Interval | None
    p_value: float
    num_cases: int
    num_groups: int
    largest: tuple[int, ...]


def compare(first: np.ndarray, second: np.ndarray, groups: list[str], *, seed: int) -> Difference:
    """Paired difference of two methods.

    Shape: (N,) and (N,), the same cases in the same order.
    """
    from scipy.stats import wilcoxon

    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return Difference(float("nan"), None, float("nan"), 0, 0, ())
    differences = np.where(both, first, 0) - np.where(both, second, 0)
    bootstrap = Bootstrap.over([group for group, kept in zip(groups, both, strict=True) if kept], seed=seed)
    kept = differences[both]
    by_group = np.bincount(bootstrap.groups, kept) / np.bincount(bootstrap.groups)
    several = bootstrap.num_groups > 1
    p_value = float("nan")
    if several:
        p_value = float(wilcoxon(by_group).pvalue) if by_group.any() else 1.0
    order = np.argsort(-np.abs(differences), kind="stable")
    return Difference(
        mean=float(kept.mean()),
        interval=interval(bootstrap.means(kept)) if several else None,
        p_value=p_value,
        num_cases=int(both.sum()),
        num_groups=bootstrap.num_groups,
        largest=tuple(int(index) for index in order[:NUM_LARGEST] if both[index]),
    )
