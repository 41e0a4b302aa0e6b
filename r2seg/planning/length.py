"""How long a training is: steps, epochs and validations that fit a budget of time, from what each was measured to take."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from r2seg.errors import UserError, counted
from r2seg.planning.facts import Choice

# nnU-Net: 1000 epochs of 250 steps.
_MOST_STEPS, _STEPS_PER_EPOCH = 250_000, 250
_USUAL_EPOCHS, _LEAST_EPOCHS = 20, 4
VALIDATION_SHARE = 0.15
# Of the budget, kept for what no measurement foresees.
_RESERVE = 0.05
# Checkpoints, metrics and TensorBoard after each epoch.
_SECONDS_PER_EPOCH = 0.3
DEFAULT_BUDGET_SECONDS = {"cpu": 3600.0, "gpu": 8 * 3600.0}
_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def parse_budget(text: str) -> float:
    """Seconds of "15min", "2h", "1h30min", "90s" or "1d".

    Raises:
        UserError: It is none of these.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    whole = "".join(f"{number}{unit}" for number, unit in parts) == re.sub(r"\s+", "", text.lower())
    if not parts or not whole or any(unit not in _UNITS for _, unit in parts):
        raise UserError(f"--budget {text}: give a time such as 15min, 2h, 1h30min or 1d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds < 60:
        raise UserError(f"--budget {text}: a training needs at least a minute")
    return seconds


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "14 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Costs:
    """What a training was measured to take, in seconds.

    Attributes:
        start: Reading and preprocessing all cases, once.
        step: One training step, windows drawn.
        validation: Predicting and scoring all validation cases.
        finish: Scoring the best checkpoint on validation and test cases at the end.
    """

    start: float
    step: float
    validation: float
    finish: float


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        steps_per_epoch: Steps.
        epochs: Epochs.
        validate_every: Epochs between validations.
        seconds: All of it, validations, preprocessing and scoring included.
        validation_share: Share of that for validations.
        notes: What a person should know, one line each.
    """

    steps_per_epoch: int
    epochs: int
    validate_every: int
    seconds: float
    validation_share: float
    notes: tuple[str, ...]

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.epochs


def fit_length(costs: Costs, budget_seconds: float) -> Length:
    """The longest training that the budget allows: at most nnU-Net's 250,000 steps, with validations of at most 15 % of the time.

    Args:
        costs: What was measured.
        budget_seconds: For everything, preprocessing and the last scoring included.
    """
    notes: list[str] = []
    fixed = costs.start + costs.finish
    available = budget_seconds * (1 - _RESERVE) - fixed
    least = _LEAST_EPOCHS * costs.step + costs.validation
    if available < least:
        notes.append(
            f"the budget of {duration(budget_seconds)} is too short: preprocessing and scoring alone take {duration(fixed)}; the plan "
            "takes longer"
        )
        available = least
    num_steps = max(_LEAST_EPOCHS, min(_MOST_STEPS, int(available * (1 - VALIDATION_SHARE) / costs.step)))
    steps_per_epoch = max(1, min(_STEPS_PER_EPOCH, num_steps // _USUAL_EPOCHS))
    epochs = max(_LEAST_EPOCHS, num_steps // steps_per_epoch)
    most_validations = max(1, int(VALIDATION_SHARE * available / max(costs.validation, 1e-9)))
    validate_every = max(1, math.ceil(epochs / most_validations))
    # What validations and checkpoints leave is spent on steps.
    validations = math.ceil(epochs / validate_every) * costs.validation
    left = available - validations - epochs * _SECONDS_PER_EPOCH
    steps_per_epoch = max(1, min(_MOST_STEPS // epochs, int(left / (epochs * costs.step)))) if left > 0 else 1
    seconds = fixed + validations + epochs * (_SECONDS_PER_EPOCH + steps_per_epoch * costs.step)
    if seconds < 0.8 * budget_seconds and epochs * steps_per_epoch > 0.9 * _MOST_STEPS:
        notes.append(f"the budget is not used up: {epochs * steps_per_epoch} steps are as many as nnU-Net takes")
    if validations > 0.3 * seconds:
        notes.append(
            f"validations take {validations / seconds:.0%} of the time: a validation of all cases takes {duration(costs.validation)}"
        )
    return Length(steps_per_epoch, epochs, validate_every, seconds, validations / seconds, tuple(notes))


def length_choices(length: Length, batch_size: int, costs: Costs, budget: str) -> list[Choice]:
    """``sampling.windows_per_epoch``, ``training.max_epochs`` and, with validation cases, ``training.validate_every``."""
    choices = [
        Choice(
            "sampling.windows_per_epoch",
            length.steps_per_epoch * batch_size,
            f"{counted(length.steps_per_epoch, 'step')} of {costs.step:.2f} s",
        ),
        Choice(
            "training.max_epochs", length.epochs, f"so that all of it takes about {duration(length.seconds)}, {budget}"
        ),
    ]
    if costs.validation > 0:
        reason = f"a validation takes {costs.validation:.1f} s: {length.validation_share:.0%} of the time in all"
        choices.append(Choice("training.validate_every", length.validate_every, reason))
    return choices
