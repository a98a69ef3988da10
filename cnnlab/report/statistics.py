"""Mean, spread and t intervals; Holm's correction over several comparisons; how many seeds would tell."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special  # not scipy.stats, which takes a second to import

ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 10_000
FLOAT32 = 1e-6  # metrics are float32: values that differ by less than this part of them are equal


@dataclass(frozen=True)
class Estimate:
    """What n values say of the mean that further ones would have."""

    mean: float
    deviation: float | None  # standard deviation (n - 1); None for a single value
    n: int
    alpha: float = ALPHA
    overlap: float = 0.0  # the size of a fold over that of its training part; values that share none: 0

    def error(self, n: int) -> float:
        """Standard error of the mean of n values.

        That of n folds is corrected for the training images that they share.

        Source: Nadeau & Bengio 2003, Inference for the Generalization Error, Machine Learning 52.
        """
        return (self.deviation or 0.0) * math.sqrt(1 / n + self.overlap)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t interval of level 1 - alpha; None where there is no spread to judge by."""
        if not self.deviation:
            return None
        half = float(special.stdtrit(self.n - 1, 1 - self.alpha / 2)) * self.error(self.n)
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float | None:
        """Of the two-sided t test that the mean is 0; None where there is no spread to judge by."""
        if not self.deviation:
            return None
        return float(2 * special.stdtr(self.n - 1, -abs(self.mean / self.error(self.n))))

    @property
    def seeds_needed(self) -> int | None:
        """The n at which the interval leaves out 0 in 4 of 5 cases if mean and spread are as observed.

        None where there is no spread or no difference, or where more than MOST_SEEDS would be needed.

        >>> Estimate(mean=0.5, deviation=1.0, n=10).seeds_needed  # the textbook's paired t test, d = 0.5
        34
        >>> Estimate(mean=-0.1273, deviation=0.0826, n=3).seeds_needed
        6
        """
        if not self.deviation:
            return None
        few, enough = 1, 2  # power grows with n; from below, as far out the distribution cannot be computed
        while self._power(enough) < POWER:
            if enough > MOST_SEEDS:
                return None
            few, enough = enough, 2 * enough
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self._power(middle) >= POWER else (middle, enough)
        return enough if enough <= MOST_SEEDS else None

    def _power(self, n: int) -> float:
        """How often n values would give an interval on the observed side of 0."""
        shift = abs(self.mean) / self.error(n)
        return 1 - float(special.nctdtr(n - 1, shift, special.stdtrit(n - 1, 1 - self.alpha / 2)))


def estimate(values: Sequence[float], scale: float = 0.0, overlap: float = 0.0) -> Estimate:
    """Mean and standard deviation of one or more values; `scale` is the size of what they were computed from.

    >>> of_three = estimate([1.0, 2.0, 3.0])  # half the interval: t(0.975, 2) = 4.303 over the root of 3
    >>> of_three.deviation, [round(end, 3) for end in of_three.interval]
    (1.0, [-0.484, 4.484])
    >>> estimate([1.0]).interval is None
    True
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    if deviation is not None and deviation <= FLOAT32 * max(scale, *map(abs, values)):
        deviation = 0.0
    return Estimate(statistics.fmean(values), deviation, len(values), overlap=overlap)


def holm(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The estimates at the levels at which Holm's procedure tests them.

    0 then lies outside an interval exactly where Holm rejects: the chance that one or more of the differences
    so told is none is at most ALPHA. The smallest p of m is tested at ALPHA / m, the next at ALPHA / (m - 1),
    until one is not rejected; the rest stay at its level. Without spread there is no test to count.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> told, not_told = holm([Estimate(1.0, 1.0, 9), Estimate(0.5, 1.0, 9)])  # p = 0.017 and 0.17
    >>> told.alpha, not_told.alpha
    (0.025, 0.05)
    """
    order = sorted((p, i) for i, e in enumerate(estimates) if (p := e.p_value) is not None)
    corrected, alpha, rejecting = list(estimates), ALPHA, True
    for rank, (p, i) in enumerate(order):
        if rejecting:
            alpha = ALPHA / (len(order) - rank)
            rejecting = p < alpha
        corrected[i] = replace(estimates[i], alpha=alpha)
    return corrected
