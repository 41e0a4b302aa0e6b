"""What MONAI's engines run: one training step, the validation of one case, and the scores as ignite metrics.

Scores come from ``r2seg.metrics``, so that validation follows the same rules as the final evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor

from r2seg.data.cache import CachedCase
from r2seg.errors import UserError
from r2seg.inference.devices import autocast
from r2seg.metrics import count_confusion


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


def make_validation_step(
    segment: Callable[..., np.ndarray], num_labels: int
) -> Callable[[Engine, CachedCase], dict[str, Any]]:
    """The iteration of ``SupervisedEvaluator``: one whole case to its confusion counts, on the device.

    Args:
        segment: Cached case -> class indices (*S) on the oriented grid.
        num_labels: K.
    """

    def validation_step(engine: Engine, case: CachedCase) -> dict[str, Any]:
        engine.network.eval()
        with torch.inference_mode():
            prediction = segment(case)
            device = engine.state.device
            counts = count_confusion(
                torch.from_numpy(np.ascontiguousarray(prediction)).to(device),
                torch.from_numpy(np.ascontiguousarray(case.reference)).to(device),
                num_labels,
            )
        return {"case": case.id, "counts": counts}

    return validation_step


class CaseScores(Metric):
    """Dice or IoU of every case and label, as an ignite metric over confusion counts.

    Args:
        score: ``r2seg.metrics.dice`` or ``iou``.

    Computes a (cases, K) float64 tensor on the CPU; NaN where a label is empty in reference and prediction.
    """

    def __init__(self, score: Callable[[Any], Tensor]) -> None:
        self.score = score
        super().__init__(output_transform=lambda output: output["counts"])

    @reinit__is_reduced
    def reset(self) -> None:
        self.rows: list[Tensor] = []

    @reinit__is_reduced
    def update(self, counts: Any) -> None:
        self.rows.append(self.score(counts).cpu())

    def compute(self) -> Tensor:
        return torch.stack(self.rows)


class MeanScore(CaseScores):
    """Mean over labels of the mean over cases; NaN scores are left out, and NaN only where nothing is left."""

    def compute(self) -> float:
        return float(super().compute().nanmean(0).nanmean())
