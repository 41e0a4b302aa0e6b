"""Budgets: what is read, and that a plan's parts add up to it."""

from __future__ import annotations

import math

import pytest

from r2seg.errors import UserError
from r2seg.planning.length import Costs, duration, fit_length, parse_budget


@pytest.mark.parametrize(
    ("text", "seconds"), [("15min", 900), ("2h", 7200), ("1h30min", 5400), ("1.5 h", 5400), ("90s", 90), ("1d", 86400)]
)
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["15", "", "soon", "3 weeks", "2h!", "h", "10s", "-5min"])
def test_other_budgets_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget"):
        parse_budget(text)


@pytest.mark.parametrize("step", [0.02, 0.4, 5.0])
@pytest.mark.parametrize("validation", [0.0, 2.0, 40.0])
@pytest.mark.parametrize("budget", [900.0, 3600.0, 8 * 3600.0])
def test_the_parts_of_a_plan_add_up_to_the_budget(step: float, validation: float, budget: float) -> None:
    costs = Costs(start=30, step=step, validation=validation, finish=1.5 * validation)
    length = fit_length(costs, budget)
    validations = math.ceil(length.epochs / length.validate_every)
    by_hand = 30 + 1.5 * validation + length.num_steps * step + validations * validation + 0.3 * length.epochs
    assert length.seconds == pytest.approx(by_hand)
    assert length.seconds <= budget
    assert length.seconds > 0.75 * budget or length.num_steps > 0.9 * 250_000
    assert validations * validation <= 0.16 * budget
    assert length.validate_every <= length.epochs


def test_a_budget_below_what_preparing_takes_is_told() -> None:
    length = fit_length(Costs(start=200, step=1, validation=60, finish=90), 120)
    assert length.seconds > 120
    assert any("the budget of 2 min is too short" in note for note in length.notes)


def test_a_training_is_not_longer_than_nnunets_whatever_the_budget() -> None:
    length = fit_length(Costs(start=10, step=0.01, validation=1, finish=1), 10 * 86400)
    assert length.num_steps <= 250_000
    assert any("the budget is not used up" in note for note in length.notes)


def test_durations_in_words() -> None:
    assert [duration(s) for s in (40, 840, 9000)] == ["40 s", "14 min", "2.5 h"]
