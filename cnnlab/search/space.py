"""What is searched: override lines -> keys with the values they may take, and a choice of values -> lines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import Override
from optuna import Trial
from optuna.distributions import CategoricalDistribution, IntDistribution

from cnnlab.allowed import RequestError
from cnnlab.compose import Composer
from cnnlab.config import is_essential
from cnnlab.result import REPLICATED
from cnnlab.search.values import Values, extremes, narrowed, rounded, size, text, values_of


@dataclass(frozen=True)
class Space:
    """The lines that all trials share, and the values that each of the other keys may take.

    `owners` names, for a key of a group whose word is searched, the words that have it where not all do:
    `conv=standard,decoupled_tanh conv.rho=interval(1,2)` searches rho with decoupled_tanh alone.
    """

    fixed: Mapping[str, str]  # key -> line
    searched: Mapping[str, Values]  # groups first
    owners: Mapping[str, frozenset[str]]

    @property
    def shared(self) -> list[str]:
        """The lines of every trial."""
        return [line for key, line in self.fixed.items() if key not in self.owners]

    def lines(self, chosen: Mapping[str, Any]) -> list[str]:
        """The override lines of a choice of values."""
        shared = [line for key, line in self.fixed.items() if self.applies(key, chosen)]
        return shared + self.varied(chosen)

    def varied(self, chosen: Mapping[str, Any]) -> list[str]:
        """Those of the lines that differ from trial to trial."""
        return [
            f"{key}={text(self.searched[key], value)}"
            for key, value in chosen.items()
            if self.applies(key, chosen)
        ]

    def typed(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The values as the lines have them, rounded."""
        return {key: rounded(self.searched[key], value) for key, value in chosen.items()}

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether every key has a value, where it applies."""
        groups = {_group(key) for key in self.owners}
        return groups & self.searched.keys() <= chosen.keys() and all(
            key in chosen for key in self.searched if self.applies(key, chosen)
        )

    def applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        return key not in self.owners or chosen[_group(key)] in self.owners[key]

    @property
    def first(self) -> dict[str, Any]:
        """One of the choices."""
        return {key: extremes(values)[0] for key, values in self.searched.items()}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """What Optuna's sampler chooses."""
        chosen: dict[str, Any] = {}
        for key, values in self.searched.items():
            if self.applies(key, chosen):
                chosen[key] = _suggested(trial, key, values)
        return chosen

    @property
    def size(self) -> float:
        """How many choices there are; inf where a value is continuous."""
        choices = 1.0
        for key in self.searched.keys() - self.owners.keys():
            values = self.searched[key]
            if isinstance(values, CategoricalDistribution):
                choices *= sum(self._owned(key, str(word)) for word in values.choices)
            else:
                choices *= size(values)
        return choices

    def _owned(self, group: str, word: str) -> float:
        keys = [key for key, words in self.owners.items() if _group(key) == group and word in words]
        return math.prod(size(self.searched[key]) for key in keys if key in self.searched)

    def narrowed(self, best: Sequence[Mapping[str, Any]]) -> "Space":
        """The space around what the best trials chose."""
        seen = {key: [chosen[key] for chosen in best if key in chosen] for key in self.searched}
        searched = {key: narrowed(values, seen[key]) for key, values in self.searched.items() if seen[key]}
        return replace(self, searched=searched)

    def at_epochs(self, epochs: int) -> "Space":
        """The same space, trained for another time."""
        return replace(self, fixed={**self.fixed, "epochs": f"epochs={epochs}"})

    def judge(self, composer: Composer) -> None:
        """Compose every word and both ends of every range."""
        for key, values in self.searched.items():
            word = {_group(key): min(self.owners[key])} if key in self.owners else {}
            for value in extremes(values):
                composer.one(self.lines(self.first | word | {key: value}))


def space_of(composer: Composer, lines: Sequence[str]) -> Space:
    """The space that override lines span, judged.

    Raises:
        RequestError: nothing is searched, or what is cannot be.
    """
    overrides: dict[str, Override] = {}
    for override in composer.parse(lines):
        key = override.key_or_group
        if key in overrides and override.is_sweep_override() | overrides[key].is_sweep_override():
            raise RequestError(f"{override.input_line}: {key} is given twice")
        overrides[key] = override
    searched = {key: values_of(o) for key, o in overrides.items() if o.is_sweep_override()}
    if not searched:
        raise RequestError("hydra/sweeper=search: no key has several values; optimizer.lr=1e-3,1e-2 would")
    for key in searched:
        if key in REPLICATED:
            raise RequestError(f"{key}: is not searched; hydra.sweeper.seeds=N averages over N seeds")
        if not is_essential(key) and key != "experiment":
            raise RequestError(f"{overrides[key].input_line}: says nothing of what a run is")
    searched = dict(sorted(searched.items(), key=lambda item: item[0] not in composer.words))
    fixed = {key: str(o.input_line) for key, o in overrides.items() if key not in searched}
    space = Space(fixed, searched, _owners(composer, fixed, searched))
    space.judge(composer)
    return space


def _owners(
    composer: Composer, fixed: Mapping[str, str], searched: Mapping[str, Values]
) -> dict[str, frozenset[str]]:
    """For keys of groups whose word is searched: the words that have them, where not all do."""
    samples = dict(fixed) | {
        key: f"{key}={text(values, extremes(values)[0])}" for key, values in searched.items()
    }
    asked = {key: line for key, line in samples.items() if "." in key and _group(key) in searched}
    shared = [line for key, line in fixed.items() if key not in asked]
    composer.one(shared)
    owners = {}
    for key, line in asked.items():
        having: set[str] = set()
        refusal = None
        for word in map(str, extremes(searched[_group(key)])):
            try:
                composer.one([*shared, f"{_group(key)}={word}", line])
                having.add(word)
            except RequestError as error:
                refusal = error
        if refusal is not None and not having:
            raise refusal
        if refusal is not None:
            owners[key] = frozenset(having)
    return owners


def _suggested(trial: Trial, key: str, values: Values) -> Any:
    match values:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, values.choices)
        case IntDistribution():
            return trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
    return trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)


def _group(key: str) -> str:
    return key.partition(".")[0]
