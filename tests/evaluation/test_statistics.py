"""Intervals and comparisons against scipy, hand-computed values and simulations."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from r2seg import metrics
from r2seg.evaluation.statistics import (
    Resampled,
    compare,
    holm,
    jackknife,
    mean,
    pooled,
    pooled_difference,
    signed_rank_p,
)

GENERATOR = np.random.default_rng(11)
PAGE = Path(__file__).parents[2] / "docs/what-the-numbers-mean.md"


def dice(evidence):
    return metrics.dice(metrics.Counts(*evidence.unbind(-1)))


def names(count):
    return [f"group{index}" for index in range(count)]


@pytest.mark.parametrize("num_groups", [3, 5, 10, 30])
def test_the_interval_of_a_mean_of_equal_groups_is_the_t_interval(num_groups):
    values = GENERATOR.normal(3, 2, num_groups)
    found = mean(values, names(num_groups))
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, *found.interval) == pytest.approx((values.mean(), theirs.low, theirs.high))
    repeated = mean(
        np.repeat(values, 4), np.repeat(names(num_groups), 4)
    )  # cases of a patient that are alike add nothing
    assert (repeated.value, *repeated.interval) == pytest.approx((found.value, *found.interval))


def test_the_jackknife_equals_its_definition():
    """Efron & Tibshirani 1993, eq. 11.5, on the patch data's ratio (table 10.1): their standard error is .106."""
    old = np.array([8406, 2342, 8187, 8459, 4795, 3516, 4796, 10238])
    new = np.array([-1200, 2601, -2705, 1982, -1290, 351, -638, -2719])
    ratio = new.sum() / old.sum()
    without = np.array([np.delete(new, i).sum() / np.delete(old, i).sum() for i in range(8)])
    low, high = jackknife(ratio, without)
    assert ratio == pytest.approx(-0.0713, abs=1e-4)
    assert (high - low) / 2 / stats.t.ppf(0.975, 7) == pytest.approx(0.106, abs=5e-4)


@pytest.mark.parametrize("num_groups", [0, 1, 2])
def test_fewer_than_three_groups_have_no_interval(num_groups):
    values = GENERATOR.random(4 * num_groups)
    groups = [f"group{index % max(num_groups, 1)}" for index in range(4 * num_groups)]
    found = mean(values, groups)
    assert (found.interval, found.num_groups) == (None, num_groups)


def test_numbers_that_are_not_finite_take_no_part_in_means():
    values = np.array([0.5, 0.6, 0.9, np.nan, np.inf])
    found = mean(values, list("abcde"))
    assert found == mean(values[:3], list("abc"))
    assert found.num_groups == 3


def test_an_interval_ends_at_the_range_of_its_measure():
    values = np.array([1, 1, 0.99, 0.5])
    assert mean(values, list("abcd")).interval[1] > 1
    assert mean(values, list("abcd"), (0, 1)).interval[1] == 1


def test_pooled_scores_are_of_summed_counts_and_groups_without_the_label_are_not_counted():
    evidence = np.array([[10, 0, 0, 5], [1, 3, 5, 6], [4, 1, 0, 9], [0, 0, 0, 30]], float)
    found = pooled(Resampled.of_sums(evidence, list("abcd"), dice))
    assert found.value == pytest.approx(2 * 15 / (2 * 15 + 4 + 5))
    without = np.array([2 * 5 / (10 + 4 + 5), 2 * 14 / (28 + 1), 2 * 11 / (22 + 3 + 5)])
    assert found.interval == pytest.approx(jackknife(found.value, without))
    assert found.num_groups == 3
    assert pooled(Resampled.of_sums(evidence[:2], list("ab"), dice)).interval is None


def test_a_pooled_difference_leaves_groups_out_of_both_methods():
    first = np.array([[10, 0, 0, 5], [1, 3, 5, 6], [4, 1, 0, 9]], float)
    second = np.array([[9, 1, 1, 4], [2, 3, 4, 6], [4, 2, 0, 8]], float)
    sides = [Resampled.of_sums(evidence, list("abc"), dice) for evidence in (first, second)]
    found = pooled_difference(*sides)
    score = lambda sums: 2 * sums[0] / (2 * sums[0] + sums[1] + sums[2])  # noqa: E731
    assert found.value == pytest.approx(score(first.sum(0)) - score(second.sum(0)))
    without = [score(np.delete(first, i, 0).sum(0)) - score(np.delete(second, i, 0).sum(0)) for i in range(3)]
    assert found.interval == pytest.approx(jackknife(found.value, np.array(without)))
    same = pooled_difference(sides[0], sides[0])
    assert (same.value, same.interval) == (0, (0, 0))


# --- two methods


def test_a_comparison_equals_scipys_wilcoxon_and_the_mean_difference():
    for count in (2, 5, 12, 30, 58):
        first, second = GENERATOR.normal(0.1, 0.2, count), GENERATOR.normal(0, 0.2, count)
        found = compare(first, second, names(count))
        assert found.mean.value == pytest.approx((first - second).mean())
        assert found.p_value == pytest.approx(stats.wilcoxon(first, second, method="exact").pvalue)
        assert found.largest[0] == int(np.abs(first - second).argmax())
    first, second = GENERATOR.normal(0.03, 0.2, 200), GENERATOR.normal(0, 0.2, 200)
    assert compare(first, second, names(200)).p_value == pytest.approx(stats.wilcoxon(first, second).pvalue)


@pytest.mark.parametrize("differences", [[1, 1, 1, 1, 1], [1, 1, -1, 2, 0, 3], [np.inf, -1, 2, 2, np.inf], [0, 0, 0.1]])
def test_the_signed_rank_test_counts_every_change_of_signs_also_with_ties(differences):
    kept = np.array([d for d in differences if d])
    ranks = stats.rankdata(np.abs(kept))
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=len(kept))]
    smaller = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    assert signed_rank_p(np.array(differences, float)) == pytest.approx(min(1, 2 * np.mean(np.array(sums) <= smaller)))


def test_five_groups_cannot_go_below_one_sixteenth():
    assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == 2 / 2**5 == 0.0625
    assert signed_rank_p(np.full(5, 0.1)) == 0.0625  # where a normal distribution gives .04


def test_a_method_that_fails_a_case_does_not_win_by_it():
    """HD95 of ten cases: the first is 1 mm better in seven, and finds nothing in three that the second finds."""
    second = np.full(10, 5.0) + np.arange(10) / 100
    first = second - 1
    assert compare(first, second, names(10), better="lower").favours == 1
    first[[2, 5, 9]] = np.inf
    found = compare(first, second, names(10), better="lower")
    assert (found.num_cases, found.first_fails, found.second_fails) == (7, (2, 5, 9), ())
    assert found.mean.value == pytest.approx(-1)
    assert found.favours == 0
    assert found.p_value == pytest.approx(signed_rank_p(np.array([-1] * 7 + [np.inf] * 3)))
    assert set(found.largest[:3]) == {2, 5, 9}
    turned = compare(second, first, names(10), better="lower")
    assert (turned.second_fails, turned.favours, turned.p_value) == ((2, 5, 9), 0, found.p_value)


def test_failures_count_in_favour_of_the_other_method():
    second = np.full(10, 5.0) + np.arange(10) / 100
    first = np.where(np.arange(10) < 8, np.inf, second + 1)
    found = compare(first, second, names(10), better="lower")
    assert (found.favours, found.p_value) == (-1, signed_rank_p(np.array([1] * 2 + [np.inf] * 8)))
    assert found.p_value == 2 / 2**10


def test_failures_of_both_are_equal_and_undefined_for_both_is_left_out():
    found = compare(np.array([np.inf, np.nan, 3.0]), np.array([np.inf, np.nan, 3.0]), list("abc"), better="lower")
    assert (found.num_cases, found.num_groups, found.p_value) == (1, 2, 1)
    assert (found.first_fails, found.second_fails) == ((), ())


def test_predicting_nothing_where_there_is_nothing_is_no_failure():
    first, second = np.array([np.nan, 0.8, 0.9]), np.array([0.0, 0.7, 0.8])  # Dice; the reference of a is empty
    empty = np.array([True, False, False]), np.zeros(3, bool)
    found = compare(first, second, list("abc"), nothing_to_find=empty)
    assert (found.first_fails, found.second_fails, found.favours) == ((), (0,), 1)
    precision = compare(first, second, list("abc"))  # undefined although there was something: nothing was predicted
    assert precision.first_fails == (0,)
    assert precision.favours == 0


def test_equal_methods_do_not_differ():
    values = GENERATOR.random(8)
    found = compare(values, values, list("abcdefgh"))
    assert (found.mean.value, found.p_value, found.mean.interval, found.favours) == (0, 1, (0, 0), 0)


def test_holms_adjustment_equals_its_definition():
    """The example of Aickin & Gensler, Am. J. Public Health 86 (1996): .01, .02, .03, .04 become .04, .06, .06, .06."""
    assert holm([0.03, 0.01, math.nan, 0.04, 0.02])[:2] == pytest.approx([0.06, 0.04])
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert math.isnan(holm([0.03, math.nan])[1])
    assert holm([0.6, 0.9]) == [1, 1]


# --- how often the interval holds the true value


def normal_cases(generator, num_groups):
    """One case per group, normal scores."""
    return mean(generator.normal(0, 1, num_groups), names(num_groups)), 0.0


def unequal_groups(generator, num_groups):
    """One to four cases per group, alike within a group."""
    sizes = generator.integers(1, 5, num_groups)
    own = np.repeat(generator.normal(0, 1, num_groups), sizes)
    return mean(own + 0.5 * generator.normal(0, 1, len(own)), np.repeat(names(num_groups), sizes)), 0.0


def skewed_cases(generator, num_groups):
    """One case per group, scores of Beta(8, 1.2): most near 1, some far below."""
    return mean(generator.beta(8, 1.2, num_groups), names(num_groups), (0, 1)), 8 / 9.2


def pooled_dice(generator, num_groups):
    """Structures of sizes that vary by a factor of two (log-normal), a share of each missed and as much added."""
    size = 1000 * generator.lognormal(0, 0.5, num_groups)
    missed, added = size * generator.beta(2, 8, num_groups), size * generator.beta(2, 8, num_groups)
    evidence = np.stack([size - missed, added, missed, size], axis=1)
    return pooled(Resampled.of_sums(evidence, names(num_groups), dice), (0, 1)), 2 * 0.8 / (2 * 0.8 + 0.2 + 0.2)


SIMULATED = {
    "one case per group, normal scores": normal_cases,
    "one to four cases per group, normal": unequal_groups,
    "one case per group, skewed scores (Beta(8, 1.2))": skewed_cases,
    "pooled Dice, sizes that vary twofold": pooled_dice,
}


def simulate(one, num_groups, num_simulations=1000):
    """Share of the intervals that hold the true value, and their mean width."""
    generator = np.random.default_rng([num_groups, *one.__name__.encode()])
    found = [one(generator, num_groups) for _ in range(num_simulations)]
    held = [estimate.interval[0] <= truth <= estimate.interval[1] for estimate, truth in found]
    return np.mean(held), np.mean([estimate.interval[1] - estimate.interval[0] for estimate, _ in found])


@pytest.mark.slow
def test_the_interval_holds_the_true_value_as_often_as_the_page_says():
    page = PAGE.read_text("utf-8")
    for name, one in SIMULATED.items():
        coverage = [simulate(one, num_groups)[0] for num_groups in (5, 10, 30)]
        line = " | ".join(f"{share:.3f}".removeprefix("0") for share in coverage)
        assert f"| {name} | {line} |" in page
        if one is not skewed_cases:
            assert all(0.92 <= share <= 0.97 for share in coverage), (name, coverage)


@pytest.mark.slow
@pytest.mark.parametrize("num_groups", [5, 10, 30])
def test_the_interval_of_normal_scores_holds_and_is_hardly_wider_than_the_t_interval(num_groups):
    coverage, width = simulate(normal_cases, num_groups)
    assert 0.93 <= coverage <= 0.97
    generator = np.random.default_rng(1)
    spread = np.mean([generator.normal(0, 1, num_groups).std(ddof=1) for _ in range(1000)])
    theirs = 2 * stats.t.ppf(0.975, num_groups - 1) * spread / math.sqrt(num_groups)
    assert width <= 1.15 * theirs


def test_the_page_shows_the_simulation():
    page = PAGE.read_text("utf-8")
    assert all(re.search(rf"\| {re.escape(name)} \| \.\d+ \| \.\d+ \| \.\d+ \|", page) for name in SIMULATED)
