"""What a variant costs, and which ones no other beats: the Pareto front of a metric against a cost."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from cnnlab.report.find import Run
from cnnlab.report.variants import Variant
from cnnlab.result import rises


class Cost(NamedTuple):
    name: str
    of: Callable[[Run], float | None]
    is_timed: bool = False


def _s_per_epoch(run: Run) -> float | None:
    result = run.result
    return result.wall_s / result.epochs_done if result.epochs_done > 0 else None


def _ms_per_batch(run: Run) -> float | None:
    """Of training batches alone; the frozen configuration knows their size."""
    size = _batch_size(run.folder)
    return 1000 * size / run.result.images_per_s if size and run.result.images_per_s else None


@functools.cache
def _batch_size(folder: Path) -> int | None:
    with suppress(OSError, UnicodeDecodeError):
        text = (folder / "config.yaml").read_text()
        if found := re.search(r"^batch_size: (\d+)$", text, re.MULTILINE):
            return int(found[1])
    return None


COSTS = (
    Cost("parameters", lambda run: run.result.params or None),
    Cost("MACs", lambda run: run.result.macs or None),
    Cost("s/epoch", _s_per_epoch, is_timed=True),
    Cost("ms/batch", _ms_per_batch, is_timed=True),
    Cost("memory MB", lambda run: run.result.peak_memory_mb),
)


@functools.cache
def known_costs(variant: Variant, cost: Cost) -> list[float]:
    """Of the runs that tell it."""
    told = [cost.of(run) for run in variant.done]
    return [value for value in told if value is not None and math.isfinite(value)]


def mean_cost(variant: Variant, cost: Cost) -> float | None:
    known = known_costs(variant, cost)
    return fmean(known) if known else None


def front(variants: Sequence[Variant], cost: Cost, metric: str) -> set[int]:
    """Which variants are on the Pareto front; none where times were taken in a crowd."""
    if cost.is_timed and any(variant.shared for variant in variants):
        return set()
    sign = 1 if rises(metric) else -1
    scores = [sign * fmean(variant.scores(metric).values()) for variant in variants]
    return pareto([mean_cost(variant, cost) for variant in variants], scores)


def pareto(costs: Sequence[float | None], scores: Sequence[float]) -> set[int]:
    """Which of the points no other one beats, by costing no more and scoring no less, one of them strictly.

    >>> pareto([1, 2, 3, 3], [0.8, 0.7, 0.9, 0.9])
    {0, 2, 3}
    """
    known = [
        (cost, -score, i)
        for i, (cost, score) in enumerate(zip(costs, scores, strict=True))
        if cost is not None
    ]
    kept: list[tuple[float, float, int]] = []
    for point in sorted(known):
        if not kept or point[1] < kept[-1][1] or point[:2] == kept[-1][:2]:
            kept.append(point)
    return {i for *_, i in kept}
