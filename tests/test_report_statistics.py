"""The numbers a report judges by, against scipy.stats, tables and chance itself."""

import math
import random

import pytest
from scipy import stats

from cnnlab.report.costs import pareto
from cnnlab.report.statistics import ALPHA, MOST_SEEDS, Estimate, estimate, holm


def drawn(n: int, seed: int, mean: float = 0.0) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(mean, 1.0) for _ in range(n)]


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_intervals_and_p_values_are_those_of_scipy(n):
    values = drawn(n, seed=n, mean=0.5)
    test = stats.ttest_1samp(values, 0)
    assert estimate(values).interval == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert estimate(values).p_value == pytest.approx(test.pvalue)


def test_an_interval_is_as_in_the_table():
    # t(0.975, 4 degrees of freedom) = 2.776; the deviation of 1..5 is sqrt(2.5)
    half = 2.776 * math.sqrt(2.5) / math.sqrt(5)
    assert estimate([1.0, 2.0, 3.0, 4.0, 5.0]).interval == pytest.approx((3 - half, 3 + half), abs=1e-3)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_without_spread_there_is_nothing_to_judge_by(values):
    assert estimate(values).interval is None
    assert estimate(values).p_value is None
    assert estimate(values).seeds_needed is None


def test_differences_in_the_last_digit_of_a_float32_are_no_spread():
    assert estimate([1e-3, 1e-3 + 1e-8], scale=0.9).interval is None


def test_holm_rejects_what_the_textbook_rejects():
    # p = 0.01, 0.04, 0.03, 0.005: 0.005 < 0.05/4, 0.01 < 0.05/3, but 0.03 > 0.05/2, and 0.04 is held back.
    of_p = {p: Estimate(stats.t.isf(p / 2, 9) / math.sqrt(10), 1.0, 10) for p in (0.01, 0.04, 0.03, 0.005)}
    corrected = holm(list(of_p.values()))
    assert [e.p_value for e in corrected] == pytest.approx(list(of_p))
    assert [e.alpha for e in corrected] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    assert [e.interval[0] > 0 for e in corrected] == [True, False, False, True]


def test_holm_leaves_what_cannot_be_tested_out_of_the_count():
    one, without = holm([estimate(drawn(5, seed=1)), estimate([0.5])])
    assert one.alpha == without.alpha == ALPHA


def test_false_differences_are_as_rare_as_promised():
    """10 comparisons of nothing: without correction 40 % of the reports would claim a difference."""
    generator = random.Random(0)
    claimed = uncorrected = 0
    for _ in range(400):
        of_nothing = [estimate([generator.gauss(0, 1) for _ in range(5)]) for _ in range(10)]
        claimed += any(e.interval[0] > 0 or e.interval[1] < 0 for e in holm(of_nothing))
        uncorrected += any(e.p_value < ALPHA for e in of_nothing)
    assert claimed / 400 < 0.08  # 5 % and three deviations
    assert uncorrected / 400 > 0.3


@pytest.mark.parametrize(("effect", "seeds"), [(1.0, 10), (0.5, 34), (0.2, 199)])
def test_seeds_needed_are_those_of_a_paired_t_test_with_power_of_four_fifths(effect, seeds):
    """Cohen 1988 and G*Power: two-sided at 5 %."""
    assert Estimate(effect, 1.0, 5).seeds_needed == seeds
    assert Estimate(-effect, 1.0, 5).seeds_needed == seeds


def test_seeds_needed_are_enough_and_one_less_is_not():
    e = Estimate(0.7, 1.0, 5, alpha=0.01)
    power = [
        float(stats.nct.sf(stats.t.isf(0.005, n - 1), n - 1, 0.7 * math.sqrt(n)))
        for n in (e.seeds_needed - 1, e.seeds_needed)
    ]
    assert power[0] < 0.8 <= power[1]


def test_no_number_of_seeds_is_promised_for_what_is_hardly_there():
    assert Estimate(1e-6, 1.0, 5).seeds_needed is None
    assert Estimate(0.0, 1.0, 5).seeds_needed is None
    assert Estimate(100.0, 1.0, 2).seeds_needed == 2
    assert Estimate(0.03, 1.0, 5).seeds_needed < MOST_SEEDS


def test_the_front_is_what_no_other_point_beats():
    generator = random.Random(3)
    costs = [generator.choice([None, 1, 2, 3, 4]) for _ in range(60)]
    scores = [generator.choice([0.1, 0.2, 0.3, 0.4]) for _ in range(60)]

    def beaten(i):
        return any(
            costs[j] is not None
            and costs[j] <= costs[i]
            and scores[j] >= scores[i]
            and (costs[j], scores[j]) != (costs[i], scores[i])
            for j in range(60)
        )

    assert pareto(costs, scores) == {i for i in range(60) if costs[i] is not None and not beaten(i)}
