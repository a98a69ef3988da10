"""Axes of a plot: a scale from values to pixels with round ticks, linear or logarithmic."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """Maps `low`..`high` to pixels `start`..`end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round values within the axis.

        >>> Axis(0.72, 0.96, 0, 300).ticks
        [0.75, 0.8, 0.85, 0.9, 0.95]
        >>> Axis(0.5, 2000, 0, 300, is_log=True).ticks
        [1.0, 10.0, 100.0, 1000.0]
        """
        return self._powers() if self.is_log else self._multiples()

    def _multiples(self) -> list[float]:
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * 0.8)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{n * step:.10g}") for n in range(first, last + 1)]

    def _powers(self) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for nice in ((1,), (1, 3), (1, 2, 5)):
            all_of_them = (n * 10.0**exponent for exponent in exponents for n in nice)
            ticks = [tick for tick in all_of_them if self.low <= tick <= self.high]
            if len(ticks) >= 3:
                break
        return ticks[:: math.ceil(len(ticks) / 6)]


def axis(values: Iterable[float], start: float, end: float, *, is_log: bool = False) -> Axis:
    """An axis around the values with some air at both ends; values that are all equal get some too."""
    values = list(values)
    low, high = min(values), max(values)
    if is_log:
        air = max((high / low) ** 0.06, 1.1)
        return Axis(low / air, high * air, start, end, is_log=True)
    air = (high - low) * 0.06 or abs(low) * 0.1 or 1.0
    return Axis(low - air, high + air, start, end)


def suits_log(values: Iterable[float]) -> bool:
    """Whether values are positive and span more than a factor of 20."""
    values = list(values)
    return min(values) > 0 and max(values) > 20 * min(values)
