"""The iteration functions of MONAI's engines: one training step, and the validation of one whole case.

What they work with is made in ``assembly``; the scores of the evidence they return are in ``r2seg.metrics``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import Tensor

from r2seg.data.cache import CachedCase
from r2seg.devices import autocast
from r2seg.errors import UserError
from r2seg.metrics import IGNORE, label_mask, probability_histogram
from r2seg.metrics.catalogue import FAMILIES, Pair


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Seed of everything random inside the network in one step; the sampler's follows from the same three numbers."""
    return int(np.random.SeedSequence([seed, epoch, step, 2]).generate_state(1, np.uint64)[0] >> 1)


def make_train_step(
    *,
    seed: int,
    dtype: torch.dtype | None,
    scaler: torch.amp.GradScaler,
    gradient_clip: float | None,
    auxiliary_weight: float,
) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """The iteration of ``SupervisedTrainer``: forward in ``dtype``, loss in float32, backward, clip, update.

    Args:
        seed: Seed of the run, see `step_seed`.
        dtype: Lower-precision type of the forward pass; None for float32.
        scaler: Scales the loss of float16; disabled for other types.
        gradient_clip: Largest norm of the gradient; None does not clip.
        auxiliary_weight: Weight of the loss of each auxiliary output of the network.

    Raises:
        UserError: The loss is NaN or infinite; the text gives the epoch, the cases and what to try. The weights are still
            those before the step. After the first epoch there is a checkpoint, and the text says that it is kept.
    """

    def train_step(engine: SupervisedTrainer, batch: dict[str, Any]) -> dict[str, Any]:
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
            raise UserError(
                f"the loss is {value} in epoch {epoch + 1}, step {step + 1}, cases {', '.join(dict.fromkeys(batch['case']))}; "
                f"lower training.learning_rate ({optimizer.param_groups[0]['lr']:.3g} now), "
                f"set training.precision: float32, or look at these cases{'; the last good checkpoint is kept' if epoch else ''}"
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
    segment: Segment,
    num_labels: int,
    *,
    families: Sequence[str] = ("counts",),
    tolerance_mm: float = 1.0,
    overlapping: bool = False,
) -> Callable[[Any, CachedCase], dict[str, Any]]:
    """The iteration of ``SupervisedEvaluator``: one whole case to the evidence that measures are scored from.

    The output's ``evidence`` holds (K, *E) for each family. Distances take the voxel as a box: shear is ignored.

    Args:
        segment: (cached case, receiver of probabilities or None) -> class indices (*S) on the oriented grid. The receiver
            takes slabs, so that the probabilities of a whole case are never in memory at once.
        num_labels: K.
        families: Those of ``metrics.catalogue.FAMILIES`` that the attached measures need. "counts" and "probabilities" are
            computed on the evaluator's device.
        tolerance_mm: Tolerance of the surface Dice; in pixels for pictures.
        overlapping: Whether the maps hold bits of overlapping labels (`label_mask`) instead of class indices.
    """

    def validation_step(engine: SupervisedEvaluator, case: CachedCase) -> dict[str, Any]:
        engine.network.eval()
        device = engine.state.device
        reference = torch.from_numpy(np.ascontiguousarray(case.reference)).to(device)
        histograms: list[Any] = [0] * num_labels

        def add_probabilities(place: tuple[slice, ...], slab: Tensor) -> None:
            truth = reference[place]
            for index, probability in enumerate(slab[-num_labels:]):
                histograms[index] += probability_histogram(
                    probability, label_mask(truth, index + 1, overlapping), truth != IGNORE
                )

        with torch.inference_mode():
            prediction = segment(case, add_probabilities if "probabilities" in families else None)
            pair = Pair(
                torch.from_numpy(np.ascontiguousarray(prediction)).to(device).masked_fill_(reference == IGNORE, 0),
                reference,
                num_labels,
                steps_mm=_steps_mm(case),
                tolerance_mm=tolerance_mm,
                overlapping=overlapping,
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
