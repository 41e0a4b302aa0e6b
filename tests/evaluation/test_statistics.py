"""Intervals and comparisons against scipy and against what chance must give."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from r2seg import metrics
from r2seg.evaluation.statistics import Bootstrap, compare, interval

GENERATOR = np.random.default_rng(11)


def test_the_interval_of_a_mean_is_scipys_within_chance():
    values = GENERATOR.gamma(2, size=60)
    ours = interval(Bootstrap.over([f"case{i}" for i in range(60)], seed=0).means(values))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_the_interval_widens_when_cases_of_a_patient_are_alike():
    patients = np.repeat(GENERATOR.normal(size=10), 20)
    alone = interval(Bootstrap.over([str(i) for i in range(200)], seed=0).means(patients))
    grouped = interval(Bootstrap.over([str(i // 20) for i in range(200)], seed=0).means(patients))
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])


def test_draws_are_the_same_for_the_same_seed_and_differ_for_another():
    groups = list("aabbccdd")
    same = [Bootstrap.over(groups, seed=5).weights for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert (same[0] != Bootstrap.over(groups, seed=6).weights).any()
    assert (same[0].sum(axis=1) == 4).all()


def test_numbers_that_are_not_finite_take_no_part_in_means():
    draws = Bootstrap.over(list("abc"), seed=0).means(np.array([1.0, np.nan, np.inf]))
    assert set(draws[np.isfinite(draws)]) == {1.0}


def test_pooled_draws_score_summed_counts():
    evidence = np.array([[10, 0, 0, 5], [1, 3, 5, 6]], float)
    bootstrap = Bootstrap.over(["a", "b"], seed=0)
    draws = bootstrap.pooled(evidence, lambda e: metrics.dice(metrics.Counts(*e.unbind(-1))))
    expected = [float(2 * s[0] / (2 * s[0] + s[1] + s[2])) for s in bootstrap.weights @ evidence]
    assert draws == pytest.approx(expected)
    assert isinstance(torch.from_numpy(draws), torch.Tensor)


def test_a_comparison_equals_scipys_wilcoxon_and_the_mean_difference():
    first, second = GENERATOR.normal(0.1, 0.2, 30), GENERATOR.normal(0, 0.2, 30)
    found = compare(first, second, [str(i) for i in range(30)], seed=0)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.p_value == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.largest[0] == int(np.abs(first - second).argmax())


def test_a_comparison_takes_only_cases_that_both_score():
    found = compare(np.array([1, np.nan, 3.0]), np.array([0.5, 2, np.inf]), ["a", "b", "c"], seed=0)
    assert (found.num_cases, found.mean, found.largest) == (1, 0.5, (0,))
    assert found.interval is None
    assert math.isnan(found.p_value)


def test_equal_methods_do_not_differ():
    values = GENERATOR.random(8)
    found = compare(values, values, list("abcdefgh"), seed=0)
    assert (found.mean, found.p_value, found.interval) == (0, 1, (0, 0))
