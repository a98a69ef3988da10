"""Two calls timed in turns, so that what slows the machine down slows both and their ratio stands."""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

SHORTEST_S = 0.02  # of one measurement: far above the clock's grain
BUDGET_S = 2.0  # for all repeats together, where their number is not given
FEWEST, MOST = 7, 50  # repeats within that budget


class Ratio(NamedTuple):
    """How long one call takes, as a multiple of the other."""

    quartiles: tuple[float, float, float]  # over the repeats; the second is the median
    baseline_ms: float  # median of the other call's time
    repeats: int


def alternate(
    call: Callable[[], object],
    baseline: Callable[[], object],
    *,
    repeats: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time two calls in turns, who goes first changing each time; a ratio per repeat.

    The clock must wait until all work begun before it is done.
    """

    def seconds(timed: Callable[[], object], times: int) -> float:
        started = clock()
        for _ in range(times):
            timed()
        return (clock() - started) / times

    both = call, baseline
    for timed in both:
        seconds(timed, 2)  # the first calls choose kernels and fill caches
    once = [max(min(seconds(timed, 1) for _ in range(3)), 1e-9) for timed in both]
    times = [math.ceil(SHORTEST_S / expected) for expected in once]
    ratios: list[float] = []
    baseline_s: list[float] = []
    started = clock()

    def enough() -> bool:
        if repeats is not None:
            return len(ratios) >= repeats
        return len(ratios) >= MOST or (len(ratios) >= FEWEST and clock() - started > BUDGET_S)

    while not enough():
        order = (0, 1) if len(ratios) % 2 else (1, 0)
        took = {which: seconds(both[which], times[which]) for which in order}
        ratios.append(took[0] / took[1])
        baseline_s.append(took[1])
    return Ratio(quartiles(ratios), 1000 * statistics.median(baseline_s), len(ratios))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """The values below which a quarter, a half and three quarters lie.

    >>> quartiles([5, 1, 3, 2, 4]), quartiles([7])
    ((2.0, 3.0, 4.0), (7, 7, 7))
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high
