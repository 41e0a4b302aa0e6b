"""What MONAI's engines run: one training step, the validation of one case, and the scores as ignite metrics.

Scores come from ``r2seg.metrics.catalogue``, so that validation follows the same rules as the final evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from r2seg.data.cache import CachedCase
from r2seg.devices import autocast
from r2seg.errors import UserError
from r2seg.metrics import IGNORE, probability_histogram
from r2seg.metrics.catalogue import FAMILIES, MEASURES, Pair


class LossNotFinite(UserError):
    """The loss became NaN or infinite."""


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Seed of everything random inside the network in one step, as the sampler's follows from the same three numbers."""
    return int(np.random.SeedSequence([seed, epoch, step, 2]).generate_state(1, np.uint64)[0] >> 1)


def make_train_step(
    *,
    seed: int,
    dtype: torch.dtype | None,
    scaler: torch.amp.GradScaler,
    gradient_clip: float | None,
    auxiliary_weight: float = 0.0,
) -> Callable[[Engine, dict[str, Any]], dict[str, Any]]:
    """The iteration of ``SupervisedTrainer``: forward in ``dtype``, loss in float32, backward, clip, step.

    Raises:
        LossNotFinite: With epoch, cases and what to try; the weights are still those before the step.
    """

    def train_step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
        network, optimizer = engine.network, engine.optimizer
        epoch, step = divmod(engine.state.iteration - 1, engine.state.epoch_length)
        torch.manual_seed(step_seed(seed, epoch, step))
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast(engine.state.device, dtype):
            if hasattr(network, "forward_with_auxiliary"):
                logits, *auxiliary = network.forward_with_auxiliary(batch["image"])
            else:
                logits, auxiliary = network(batch["image"]), ()
        loss = engine.loss_function(logits, batch["label"])
        for other in auxiliary:
            loss = loss + auxiliary_weight * engine.loss_function(other, batch["label"])
        value = loss.item()
        if not np.isfinite(value):
            raise LossNotFinite(
                f"the loss is {value} in epoch {epoch + 1}, step {step + 1}, cases {', '.join(dict.fromkeys(batch['case']))}; "
                f"lower training.learning_rate ({engine.optimizer.param_groups[0]['lr']:.3g} now), "
                "set training.precision: float32, or look at these cases; the last good checkpoint is kept"
            )
        scaler.scale(loss).backward()
        if gradient_clip is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        return {"loss": value}

    return train_step


Segment = Callable[[CachedCase, Callable[[tuple[slice, ...], Tensor], None] | None], np.ndarray]


def make_validation_step(
    segment: Segment, num_labels: int, *, families: Sequence[str] = ("counts",), tolerance_mm: float = 1.0
) -> Callable[[Engine, CachedCase], dict[str, Any]]:
    """The iteration of ``SupervisedEvaluator``: one whole case to the evidence that measures are scored from.

    Args:
        segment: (cached case, receiver of probabilities or None) -> class indices (*S) on the oriented grid; the receiver
            takes slabs, so that no case's probabilities are ever held whole.
        num_labels: K.
        families: Of ``metrics.catalogue.FAMILIES``: those of the measures that are attached to the evaluator. "counts" and
            "probabilities" are gathered on the evaluator's device.
        tolerance_mm: Of the surface Dice; pixels for pictures.

    The output's ``evidence`` holds (K, *E) for each family. Distances take the voxel as a box: shear is not known here.
    """

    def validation_step(engine: Engine, case: CachedCase) -> dict[str, Any]:
        engine.network.eval()
        device = engine.state.device
        reference = torch.from_numpy(np.ascontiguousarray(case.reference)).to(device)
        histograms = [0] * num_labels

        def add_probabilities(place: tuple[slice, ...], slab: Tensor) -> None:
            truth = reference[place]
            for index, probability in enumerate(slab[-num_labels:]):
                histograms[index] += probability_histogram(probability, truth == index + 1, truth != IGNORE)

        with torch.inference_mode():
            prediction = segment(case, add_probabilities if "probabilities" in families else None)
            pair = Pair(
                torch.from_numpy(np.ascontiguousarray(prediction)).to(device).masked_fill_(reference == IGNORE, 0),
                reference,
                num_labels,
                steps_mm=_steps_mm(case),
                tolerance_mm=tolerance_mm,
            )
            evidence = {
                name: torch.stack(histograms).cpu() if name == "probabilities" else FAMILIES[name].evidence(pair)
                for name in families
            }
        return {"case": case, "prediction": prediction, "evidence": evidence}

    return validation_step


def _steps_mm(case: CachedCase) -> Tensor | None:
    """Steps along the oriented grid's axes as columns; None for pictures."""
    if case.reference.ndim == 2:
        return None
    working, oriented = case.grid.shape, case.grid.oriented_shape
    return torch.diag(torch.tensor(case.spacing_mm) * torch.tensor(working) / torch.tensor(oriented)).double()


class PooledEvidence(Metric):
    """Sum over cases of one family's evidence, as an ignite metric: what pooled scores and thresholds come from.

    Args:
        family: Of ``metrics.catalogue.FAMILIES``.
        output_transform: Engine's output -> evidence (K, *E) of a case, or its ``metrics.catalogue.Pair``.
    """

    def __init__(self, family: str, output_transform: Callable[[Any], Tensor | Pair] | None = None) -> None:
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

    def compute(self) -> Tensor:
        return self.sum


class CaseScores(Metric):
    """A measure of every case and label, as an ignite metric for MONAI's evaluators.

    Args:
        measure: Of ``metrics.catalogue.MEASURES``, such as "dice" or "hd95": the same functions that score written files.
        output_transform: Engine's output -> evidence (K, *E) of a case, or its ``metrics.catalogue.Pair``, for evaluators
            with another iteration than `make_validation_step`.

    Computes a (cases, K) float64 tensor on the CPU; NaN where a score is undefined, such as a label that is empty in
    reference and prediction.
    """

    def __init__(self, measure: str, output_transform: Callable[[Any], Tensor | Pair] | None = None) -> None:
        if measure not in MEASURES:
            raise ValueError(f"{measure!r} is no measure; there are {', '.join(MEASURES)}")
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
    """Mean over labels of the mean over cases; scores that are not finite are left out, NaN only where nothing is left."""

    def compute(self) -> float:
        scores = super().compute()
        return float(scores.where(scores.isfinite(), torch.nan).nanmean(0).nanmean())


def _evidence(case: Tensor | Pair, family: str) -> Tensor:
    return FAMILIES[family].evidence(case) if isinstance(case, Pair) else case
