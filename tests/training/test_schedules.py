"""Learning-rate schedules against numbers by hand."""

from __future__ import annotations

import pytest

from r2seg.training.schedules import learning_rate_factor


def test_learning_rate_warms_up_then_falls_to_a_hundredth() -> None:
    factor = learning_rate_factor(warmup_epochs=1, max_epochs=10, steps_per_epoch=10)
    assert [factor(0), factor(4)] == pytest.approx([1 / 11, 5 / 11])
    assert factor(10) == pytest.approx(1.0)
    assert factor(55) == pytest.approx(0.01 + 0.99 / 2)
    assert factor(100) == pytest.approx(0.01)
