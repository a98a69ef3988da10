"""What a check answers."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """A verdict, the figure it rests on, and what both mean in plain words."""

    verdict: Verdict
    figure: str
    words: str


def skipped(why: str) -> Finding:
    """Nothing to judge in this configuration."""
    return Finding("skip", "", why)


def grade(value: float, *, warn: float, fail: float) -> Verdict:
    """Pass up to `warn`, fail above `fail`; nan fails.

    >>> grade(1.0, warn=1, fail=2), grade(2.0, warn=1, fail=2), grade(float("nan"), warn=1, fail=2)
    ('pass', 'warn', 'fail')
    """
    return "pass" if value <= warn else "warn" if value <= fail else "fail"
