"""Runs -> variants, the runs that are equal but for seed and fold; variants -> sections, one per data set."""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnlab.config import default_words, is_essential, shown
from cnnlab.report.find import Run
from cnnlab.result import REPLICATED, Result

Replicate = tuple[int, int]  # seed and fold
Traits = dict[str, str]  # group -> word and dotted key -> value, as they are typed

DEFAULT = "default"  # a value that no run tells


@dataclass(eq=False)
class Variant:
    traits: Traits
    runs: dict[Replicate, Run] = field(default_factory=dict)
    label: tuple[str, ...] = ()  # what sets it apart from the others of its section

    @functools.cached_property
    def done(self) -> list[Run]:
        return [run for _, run in sorted(self.runs.items()) if run.result.status == "done"]

    @property
    def shared(self) -> bool:
        """Whether times were taken while other runs used the machine."""
        return any(run.result.shared for run in self.done)

    def scores(self, metric: str) -> dict[Replicate, float]:
        """The finite ones."""
        found = {run.result.replicate: run.result.metrics.get(metric, math.nan) for run in self.done}
        return {replicate: score for replicate, score in found.items() if math.isfinite(score)}

    def value(self, key: str) -> str:
        """The word of a group or the value of a key; of a default one what its overrides tell."""
        if key in self.traits:
            return self.traits[key]
        lines = [str(line).lstrip("+") for run in self.runs.values() for line in run.result.overrides]
        return next((line.partition("=")[2] for line in lines if line.startswith(f"{key}=")), DEFAULT)

    def has_default(self, key: str) -> bool:
        return key not in self.traits or self.traits[key] == default_words().get(key)

    def is_asked(self, wishes: Mapping[str, str]) -> bool:
        return all(_equal(self.value(key), value) for key, value in wishes.items())


@dataclass
class Section:
    """Runs on the same data: only these are compared."""

    data: Traits
    variants: list[Variant]
    keys: list[str] = field(init=False)  # what varies: groups in the order of the results, then dotted keys

    def __post_init__(self) -> None:
        groups = {group for v in self.variants for run in v.runs.values() for group in run.result.choices}
        keys = dict.fromkeys(key for variant in self.variants for key in variant.traits)
        varying = [key for key in keys if len({variant.traits.get(key) for variant in self.variants}) > 1]
        self.keys = sorted(varying, key=lambda key: key not in groups)
        alone = [key for key in self.keys if key in groups]  # if it is one, its words need no key
        twins: Counter[tuple[str, ...]] = Counter()
        for variant in self.variants:
            told = [(key, value) for key in self.keys if (value := variant.value(key)) != DEFAULT]
            parts = [value if alone == [key] else f"{key}={value}" for key, value in told]
            label = tuple(parts or ["defaults"])
            twins[label] += 1  # a default may have been another one when it was told
            variant.label = label if twins[label] == 1 else (*label, f"({twins[label]})")

    @property
    def name(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.data.items()) or "unknown data"

    def baseline(self, metric: str, wishes: Mapping[str, str]) -> Variant | None:
        """The variant nearest to the defaults, of those with the metric and, if there are any, as wished."""
        scored = [variant for variant in self.variants if variant.scores(metric)]
        if not scored:
            return None
        asked = [variant for variant in scored if variant.is_asked(wishes)] or scored
        return max(asked, key=lambda variant: sum(variant.has_default(key) for key in self.keys))


def sections(runs: Iterable[Run]) -> tuple[list[Section], int]:
    """The sections, and how many runs are left out because the same was run again.

    Of runs with equal choices, values, seed and fold the last that is done counts.
    """
    by_data: dict[Any, dict[Any, Variant]] = {}
    repeated = 0
    for run in sorted(runs, key=lambda run: (run.result.status == "done", run.result.started)):
        of_run = traits(run.result)
        data = {key: value for key, value in of_run.items() if key.partition(".")[0] == "dataset"}
        variants = by_data.setdefault(_key(data), {})
        variant = variants.setdefault(_key(of_run), Variant(of_run))
        repeated += run.result.replicate in variant.runs
        variant.runs[run.result.replicate] = run
    return [Section(dict(data), _by_start(variants.values())) for data, variants in by_data.items()], repeated


def traits(result: Result) -> Traits:
    """What a run is, but for its seed and fold.

    >>> traits(Result("0" * 10, "default", values={"epochs": 2, "conv.rho": 2.0, "threads": 1}))
    {'epochs': '2', 'conv.rho': '2'}
    """
    told = result.choices | result.values
    return {key: _shown(value) for key, value in told.items() if is_essential(key) and key not in REPLICATED}


def _shown(value: Any) -> str:
    """1 and 1.0 are one value."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return shown(int(value) if whole else value)


def _equal(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _key(traits: Traits) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(traits.items()))


def _by_start(variants: Iterable[Variant]) -> list[Variant]:
    return sorted(variants, key=lambda variant: min(run.result.started for run in variant.runs.values()))


def unfinished(sections: Sequence[Section]) -> list[tuple[str, Run]]:
    """Runs that are not done, with what they are."""
    return [
        (", ".join((*variant.label, f"seed={seed}", *([f"dataset.fold={fold}"] if fold else []))), run)
        for section in sections
        for variant in section.variants
        for (seed, fold), run in sorted(variant.runs.items())
        if run.result.status != "done"
    ]
