"""The measures of the catalogue as ignite metrics, for MONAI's evaluators and for validation during training.

They score by the same functions as the evaluation of written files. Which measures there are is in ``catalogue``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from r2seg.metrics.catalogue import FAMILIES, MEASURES, Pair


class PooledEvidence(Metric):
    """Sum over cases of one family's evidence: what pooled scores and thresholds are computed from.

    Args:
        family: One of ``catalogue.FAMILIES``.
        output_transform: Engine output -> evidence (K, *E) of a case, or its ``catalogue.Pair``. By default the output holds
            the evidence as ``output["evidence"][family]``.

    Raises:
        ValueError: The family is unknown, or its evidence does not add up over cases.
    """

    def __init__(self, family: str, output_transform: Callable[[Any], Tensor | Pair] | None = None) -> None:
        if family not in FAMILIES:
            raise ValueError(f"{family!r} is not a family of measures; valid are {', '.join(FAMILIES)}")
        if not FAMILIES[family].adds_up:
            raise ValueError(f"evidence of {family} does not add up over cases: attach CaseScores or MeanScore")
        self.family = family
        super().__init__(output_transform=output_transform or (lambda output: output["evidence"][family]))

    @reinit__is_reduced
    def reset(self) -> None:
        self.sum: Tensor | int = 0

    @reinit__is_reduced
    def update(self, case: Tensor | Pair) -> None:
        self.sum = self.sum + _evidence(case, self.family)

    def compute(self) -> Tensor | int:
        return self.sum


class CaseScores(Metric):
    """A measure of every case and label: a (cases, K) float64 tensor on the CPU.

    A score is NaN where it is undefined, such as Dice of a label that is empty in both reference and prediction.

    Args:
        measure: One of ``catalogue.MEASURES``, such as "dice" or "hd95".
        output_transform: Engine output -> evidence (K, *E) of a case, or its ``catalogue.Pair``. By default the output holds
            the evidence of the measure's family as ``output["evidence"][family]``.

    Raises:
        ValueError: The measure is unknown.
    """

    def __init__(self, measure: str, output_transform: Callable[[Any], Tensor | Pair] | None = None) -> None:
        if measure not in MEASURES:
            raise ValueError(f"{measure!r} is not a measure; valid are {', '.join(MEASURES)}")
        self.measure = MEASURES[measure]
        family = self.measure.family
        super().__init__(output_transform=output_transform or (lambda output: output["evidence"][family]))

    @reinit__is_reduced
    def reset(self) -> None:
        self.rows: list[Tensor] = []

    @reinit__is_reduced
    def update(self, case: Tensor | Pair) -> None:
        self.rows.append(self.measure.score(_evidence(case, self.measure.family)))

    def compute(self) -> Any:
        return torch.stack(self.rows)


class MeanScore(CaseScores):
    """Mean over labels of the mean over cases. Scores that are not finite are left out; NaN only if none is finite."""

    def compute(self) -> float:
        scores = super().compute()
        return float(scores.where(scores.isfinite(), torch.nan).nanmean(0).nanmean())


def _evidence(case: Tensor | Pair, family: str) -> Tensor:
    return FAMILIES[family].evidence(case) if isinstance(case, Pair) else case
