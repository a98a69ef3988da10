"""The stopwatch gives the ratio of two calls, whatever the machine does meanwhile."""

import statistics

import numpy as np
import pytest

from cnnlab.bench.stopwatch import BUDGET_S, FEWEST, MOST, SHORTEST_S, alternate, quartiles


class Machine:
    """A clock that work moves on; `drag` makes each second of work longer than the one before."""

    def __init__(self, drag: float = 0.0) -> None:
        self.now, self.drag, self.log = 0.0, drag, []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def call() -> None:
            self.now += seconds * (1 + self.drag * self.now)
            self.log.append(name)

        return call


def test_the_ratio_is_that_of_the_two_calls():
    machine = Machine()
    ratio = alternate(machine.work("a", 0.03), machine.work("b", 0.02), clock=machine.clock, repeats=5)
    assert ratio.quartiles == pytest.approx((1.5, 1.5, 1.5))
    assert (ratio.baseline_ms, ratio.repeats) == (pytest.approx(20), 5)


def test_a_machine_that_slows_down_leaves_the_ratio_as_it_is():
    machine = Machine(drag=0.5)  # after 2 s work takes twice as long
    ratio = alternate(machine.work("a", 0.03), machine.work("b", 0.02), clock=machine.clock, repeats=20)
    assert machine.now > 1.5
    assert ratio.quartiles[1] == pytest.approx(1.5, rel=0.01)


def test_who_goes_first_changes_with_every_repeat():
    machine = Machine()
    alternate(machine.work("a", 0.03), machine.work("b", 0.025), clock=machine.clock, repeats=3)
    assert "".join(machine.log[-6:]) == "ba" + "ab" + "ba"


def test_short_calls_are_repeated_until_a_measurement_is_long_enough():
    machine = Machine()
    alternate(machine.work("a", 0.003), machine.work("b", 0.05), clock=machine.clock, repeats=1)
    assert "".join(machine.log[-8:]) == "b" + 7 * "a"  # 7 * 3 ms, the first multiple above 20 ms
    assert 7 * 0.003 >= SHORTEST_S > 6 * 0.003


@pytest.mark.parametrize(("seconds", "expected"), [(0.0201, MOST), (0.05, BUDGET_S / 0.1), (10.0, FEWEST)])
def test_repeats_end_with_the_budget(seconds, expected):
    machine = Machine()
    ratio = alternate(machine.work("a", seconds), machine.work("b", seconds), clock=machine.clock)
    assert ratio.repeats == pytest.approx(expected, abs=1)


def test_a_call_that_takes_no_time_is_no_division_by_zero():
    machine = Machine()
    machine.clock = iter(range(10**9)).__next__  # every look at the clock is a second later
    assert alternate(lambda: None, lambda: None, clock=machine.clock, repeats=2).quartiles[1] == 1


def test_quartiles_are_those_of_numpy():
    values = list(np.random.default_rng(0).normal(size=11))
    assert quartiles(values) == pytest.approx(tuple(np.quantile(values, [0.25, 0.5, 0.75])))
    assert quartiles(values)[1] == statistics.median(values)
