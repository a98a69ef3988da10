"""The values one key may take: words, or numbers of a range on a linear or a logarithmic scale.

>>> lr = FloatDistribution(1e-4, 1e-1, log=True)
>>> round(position(lr, 1e-3), 4), text(lr, 0.0031622776)
(0.3333, '0.003162')
>>> narrowed(lr, [1e-3, 2e-3])
FloatDistribution(high=0.003991, log=True, low=0.0005012, step=None)
>>> edge(lr, 0.09), edge(lr, 0.05), edge(CategoricalDistribution(["32", "8", "16"]), "8")
('the upper end of 0.0001 to 0.1', None, 'the lower end of 8.0 to 32.0')
"""

import math
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from cnnlab.allowed import RequestError

Values = CategoricalDistribution | FloatDistribution | IntDistribution

MARGIN = 0.1  # of a range, that narrowing leaves on either side
EDGE = 0.05  # of a range, that counts as its edge


def values_of(override: Override) -> Values:
    """What an override line of several values spans.

    Raises:
        RequestError: an empty range, or a scale that it cannot have.
    """
    line, sweep = override.input_line, override.value()
    tags = set(getattr(sweep, "tags", ()))
    if tags - {"log"}:
        raise RequestError(f"{line}: a tag must be log, got {', '.join(sorted(tags))}")
    match sweep:
        case IntervalSweep(start=start, end=end):
            if not (math.isfinite(start) and math.isfinite(end) and start < end):  # type: ignore[arg-type, operator]
                raise RequestError(f"{line}: an interval must be of two numbers, the smaller first")
            whole, step = isinstance(start, int) and isinstance(end, int), None
        case RangeSweep():
            numbers = sorted(sweep.range())
            if not numbers:
                raise RequestError(f"{line}: the range is empty")
            start, end, step = numbers[0], numbers[-1], abs(sweep.step)
            whole = isinstance(start, int)
            if tags and not (whole and step == 1):
                raise RequestError(f"{line}: on a logarithmic scale a range can have no step")
        case _:
            if tags:
                raise RequestError(f"{line}: words have no scale; log is for interval and range")
            return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    if tags and start <= 0:  # type: ignore[operator]
        raise RequestError(f"{line}: a logarithmic scale begins above 0")
    if whole:
        return IntDistribution(start, end, log=bool(tags), step=step or 1)  # type: ignore[arg-type]
    return FloatDistribution(start, end, log=bool(tags), step=step)  # type: ignore[arg-type]


def extremes(values: Values) -> Sequence[Any]:
    """All words, or both ends."""
    return values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)


def size(values: Values) -> float:
    if isinstance(values, CategoricalDistribution):
        return len(values.choices)
    return math.inf if values.step is None else round((values.high - values.low) / values.step) + 1


def text(values: Values, value: Any) -> str:
    """A value as the command line takes it."""
    return str(rounded(values, value))


def rounded(values: Values, value: Any) -> Any:
    """What is drawn from an interval, to four digits of the value or of the interval's width."""
    if not isinstance(values, FloatDistribution):
        return value
    finest = min(filter(None, (abs(value), values.high - values.low, values.step)))
    digits = 3 - math.floor(math.log10(finest))
    return min(max(round(value, digits), values.low), values.high)


def position(values: FloatDistribution | IntDistribution, value: float) -> float:
    """Where in its range a number lies: 0 at the lower end, 1 at the upper, on the range's scale."""
    low, high = values.low, values.high
    if low == high:
        return 0.5
    if values.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def number_at(values: FloatDistribution | IntDistribution, place: float) -> float:
    low, high = values.low, values.high
    return low * (high / low) ** place if values.log else low + (high - low) * place


def narrowed(values: Values, best: Sequence[Any]) -> Values:
    """The words among the best, or the range that these span, with a margin on either side."""
    if isinstance(values, CategoricalDistribution):
        return CategoricalDistribution([word for word in values.choices if word in best])
    places = [position(values, value) for value in best]
    low = number_at(values, max(0, min(places) - MARGIN))
    high = number_at(values, min(1, max(places) + MARGIN))
    if values.step is not None:  # outwards to the grid
        low = values.low + math.floor((low - values.low) / values.step) * values.step
        high = min(values.low + math.ceil((high - values.low) / values.step) * values.step, values.high)
    if isinstance(values, IntDistribution):
        return IntDistribution(int(low), int(high), log=values.log, step=values.step)
    return FloatDistribution(rounded(values, low), rounded(values, high), log=values.log, step=values.step)


def edge(values: Values, best: Any) -> str | None:
    """The end of the range that the best value lies at, if any; three words that are numbers are a range too.

    >>> edge(CategoricalDistribution(["relu", "elu", "selu"]), "relu")
    """
    if isinstance(values, CategoricalDistribution):
        numbers = [number for word in values.choices if (number := _number(str(word))) is not None]
        if not 3 <= len(numbers) == len(values.choices):
            return None
        values, best = FloatDistribution(min(numbers), max(numbers)), float(best)
    place = position(values, best)
    if place < EDGE:
        return f"the lower end of {shown(values)}"
    return f"the upper end of {shown(values)}" if place > 1 - EDGE else None


def shown(values: Values) -> str:
    """The words, or the range.

    >>> shown(CategoricalDistribution(["relu", "elu"])), shown(IntDistribution(16, 64))
    ('relu, elu', '16 to 64')
    """
    if isinstance(values, CategoricalDistribution):
        return ", ".join(map(str, values.choices))
    return f"{text(values, values.low)} to {text(values, values.high)}"


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
