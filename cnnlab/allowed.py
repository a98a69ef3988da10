"""What an argument may be: each check returns the value or says in one line what is allowed.

>>> number("rho", 2.0, above=0)
2.0
>>> number("rho", -1, above=0)
Traceback (most recent call last):
ValueError: rho must be a number > 0, got -1
>>> one_of("angular", "cosin", ["cosine", "linear"])
Traceback (most recent call last):
ValueError: angular must be one of cosine, linear; got 'cosin', did you mean 'cosine'?
"""

import difflib
import math
from collections.abc import Iterable
from operator import ge, gt, le, lt
from typing import Any


class RequestError(Exception):
    """The request was wrong, or data it needs are missing or corrupt: one line on stderr, exit code 2."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most like `word`, or None where nothing is close."""
    matches = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or nothing where nothing is close."""
    near = nearest(word, words)
    return f", did you mean '{near}'?" if near else ""


def one_of(name: str, value: Any, words: Iterable[Any]) -> Any:
    words = list(words)
    if value not in words:
        shown = [str(word) for word in words]
        raise ValueError(
            f"{name} must be one of {', '.join(shown)}; got {value!r}{did_you_mean(value, shown)}"
        )
    return value


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A real number (int or float, not bool) within its bounds; inf counts, nan does not."""
    bounds = [(">", above, gt), (">=", at_least, ge), ("<", below, lt), ("<=", at_most, le)]
    asked = [(sign, bound, holds) for sign, bound, holds in bounds if bound is not None]
    real = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if not real or not all(holds(value, bound) for _, bound, holds in asked):
        allowed = " and".join(f" {sign} {bound}" for sign, bound, _ in asked)
        raise ValueError(f"{name} must be a number{allowed}, got {value!r}")
    return value


def finite(name: str, value: Any, *, above: float | None = None, at_least: float | None = None) -> Any:
    """A number within its bound that is not inf."""
    if math.isinf(number(name, value, above=above, at_least=at_least)):
        raise ValueError(f"{name} must be finite, got inf")
    return value


def whole(name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value!r}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name} must be a whole number <= {at_most}, got {value!r}")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a word, got {value!r}")
    return value


def truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value
