"""Override lines -> configurations, as Hydra does it, with every mistake answered in one line, without torch.

    lines -> overrides -> base (the chosen words) -> values on top -> judged -> Config

Hydra composes the chosen words, once per tuple of words; the values are put on top of a copy. So a sweep's
jobs cost milliseconds each, and what differs from the defaults is known without a second composition.
"""

import math
import pickle
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnlab.allowed import RequestError, did_you_mean, nearest
from cnnlab.config import Config, default_words, flatten
from cnnlab.judge import RESERVED, judge
from cnnlab.pinned import pinned
from cnnlab.registry import CONF, check_config_dir
from cnnlab.signature import REQUIRED, signature

ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError, AttributeError)


class Base(NamedTuple):
    """What chosen words compose to, once for all the jobs that choose them."""

    cfg: DictConfig
    choices: dict[str, str]  # group -> word
    values: dict[str, Any]  # dotted key -> value
    pickled: bytes  # reading it copies in a sixth of the time that copy.deepcopy takes


class Composer:
    """Turns override lines into configurations, as Hydra does, but says what is wrong in one line.

    >>> config = Composer().one(["conv=decoupled_tanh", "ortho_weight=0.1"])
    >>> config.choices["conv"], config.values, config.summary
    ('decoupled_tanh', {'ortho_weight': 0.1}, 'conv=decoupled_tanh,ortho_weight=0.1')
    """

    def __init__(
        self, config_dir: str | None = None, config_name: str = "config", config_path: str | None = None
    ) -> None:
        search_path = create_config_search_path(config_path or str(CONF))
        if config_dir is not None:
            check_config_dir(Path(config_dir))
            search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}")
        self.config_name = config_name
        self.loader = ConfigLoaderImpl(search_path)
        groups = (group for group in self.loader.list_groups("") if group != "hydra")
        self.words = {group: self.loader.get_group_options(group) for group in groups}
        self.bases: dict[tuple[str, ...], Base] = {}
        self.left_out: dict[str, list[str]] = {}  # key of a sweep -> the choices it was left out for

    def one(self, lines: Iterable[str]) -> Config:
        """The configuration of one run."""
        overrides = self.parse(lines)
        for override in overrides:
            if override.is_sweep_override():
                raise RequestError(f"{override.input_line}: several values make a sweep, which needs -m")
        return self._config(overrides)

    def sweep(self, lines: Iterable[str]) -> list[Config]:
        """The configurations of a sweep's jobs, each of them judged; equal ones are one.

        A key that only some of the chosen words have is left out for the others, as `left_out` tells.
        """
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        try:
            lists = BasicSweeper.split_arguments(self.parse(lines), max_batch_size=None)[0]
        except ERRORS as error:
            raise RequestError(_first_line(error)) from error
        configs = [self._config(job) for job in self._without_strays([self.parse(job) for job in lists])]
        return [*{config.key: config for config in configs}.values()]

    def _without_strays(self, jobs: list[list[Override]]) -> list[list[Override]]:
        """The jobs without the keys that their words lack, where the words of another job have them."""
        words = [self.chosen(job) for job in jobs]
        asked = {
            (chosen, o.key_or_group)
            for chosen, job in zip(words, jobs, strict=True)
            for o in job
            if self._is_value(o)
        }
        bases = {chosen: self._base(chosen) for chosen in words}
        known = {(chosen, key) for chosen, key in asked if self._has(key, bases[chosen], bases[chosen].cfg)}
        owned = {key for _, key in known}
        strays = {(chosen, key) for chosen, key in asked - known if key in owned}
        self.left_out = {}
        for chosen, key in sorted(strays):
            group = key.partition(".")[0]
            choice = f"{group}={bases[chosen].choices.get(group)}"
            if choice not in self.left_out.setdefault(key, []):
                self.left_out[key].append(choice)
        return [
            [o for o in job if (chosen, o.key_or_group) not in strays]
            for chosen, job in zip(words, jobs, strict=True)
        ]

    def parse(self, lines: Iterable[str]) -> list[Override]:
        # Hydra's `+key=` would add any key, known or not; here every key is judged, so the sign says nothing.
        lines = [line.lstrip("+") for line in lines]
        for line in lines:
            if line.startswith("~"):
                raise RequestError(f"{line}: keys can be changed, not deleted")
            if "=" not in line:
                raise RequestError(f"{line}: neither a verb nor KEY=VALUE")
        parser = OverridesParser.create(config_loader=self.loader)
        overrides = []
        for line in lines:
            try:
                overrides += parser.parse_overrides([line])
            except ERRORS as error:
                key, _, value = line.partition("=")
                text = shlex.quote(QuotedString(value, Quote.double).with_quotes())
                raise RequestError(f"{line}: cannot be read; as a text it is {key}={text}") from error
        return overrides

    def for_hydra(self, lines: Iterable[str]) -> list[str]:
        """The lines as Hydra must get them: `++` admits constructor arguments that a YAML does not list."""
        return [
            f"++{override.input_line}" if self._is_value(override) else str(override.input_line)
            for override in self.parse(lines)
        ]

    def _is_value(self, override: Override) -> bool:
        return override.key_or_group not in self.words and not override.is_hydra_override()

    def _config(self, overrides: list[Override]) -> Config:
        return pinned(self._with_hard_constraint(overrides))

    def _with_hard_constraint(self, overrides: list[Override]) -> Config:
        config = self._composed(overrides)
        if config.tree["ortho_weight"] != math.inf:
            return config
        # The limit of an ever larger weight is the constraint itself: the kernel is built orthogonal.
        if config.choices["conv"] != "standard":
            raise RequestError(
                f"ortho_weight=inf: turns conv=standard into orthogonal; got conv={config.choices['conv']}"
            )
        others = [override for override in overrides if override.key_or_group != "conv"]
        hard = self._composed([*others, *self.parse(["conv=orthogonal"])])
        if hard.tree["regularizer"]["orthogonality"] != math.inf:
            raise RequestError("ortho_weight=inf: leaves no room for regularizer.orthogonality")
        hard.tree["regularizer"]["orthogonality"] = 0
        return Config(hard.tree, hard.choices, hard.values, config.overrides)

    def _composed(self, overrides: list[Override]) -> Config:
        overrides = [o for o in overrides if not o.is_hydra_override()]  # those say how a sweep runs
        base = self._base(self.chosen(overrides))
        cfg, choices = pickle.loads(base.pickled), base.choices
        for override in filter(self._is_value, overrides):
            self._apply(override, cfg, base)
        tree = _resolved(cfg, choices)
        if "experiment" in choices:  # what it sets differs from the defaults, however it was asked for
            words = {group: word for group, word in choices.items() if group != "experiment"}
            base = self._base(tuple(f"{group}={word}" for group, word in words.items()))
        before, after = base.values, _flat(cfg)
        missing = object()
        values = {
            key: value
            for key, value in flatten(tree).items()
            if before.get(key, missing) != after.get(key, missing)
        }
        config = Config(tree, choices, values, [str(override.input_line) for override in overrides])
        judge(config)
        return config

    def chosen(self, overrides: Iterable[Override]) -> tuple[str, ...]:
        """The lines that choose words, judged."""
        return tuple(self._word(o) for o in overrides if o.key_or_group in self.words)

    def _word(self, override: Override) -> str:
        """The line that chooses a word, judged."""
        line, group = str(override.input_line), override.key_or_group
        word, words = override.value(), self.words[group]
        if override.package is not None or not isinstance(word, str):
            raise RequestError(f"{line}: must be {group}=WORD, with a word of {', '.join(words)}")
        if word not in words:
            near = did_you_mean(word, words)
            raise RequestError(f"{line}: no such {group}{near or '; there are ' + ', '.join(words)}")
        return line

    def _base(self, lines: tuple[str, ...]) -> Base:
        """The composition of the chosen words."""
        if lines not in self.bases:
            try:
                base = self.loader.load_configuration(self.config_name, list(lines), RunMode.RUN)
            except ERRORS as error:
                raise RequestError(_first_line(error)) from error
            chosen = base.hydra.runtime.choices
            groups = default_words() | dict.fromkeys(self.words)
            choices = {group: str(chosen[group]) for group in groups if chosen.get(group)}
            with open_dict(base):
                del base["hydra"]
            for group, word in choices.items():
                node = base.get(group)
                if group != "experiment" and not (OmegaConf.is_dict(node) and "_target_" in node):
                    raise RequestError(
                        f"{group}={word}: {word}.yaml must hold `_target_: CLASS` and its knobs"
                    )
            self.bases[lines] = Base(base, choices, _flat(base), pickle.dumps(base))
        return self.bases[lines]

    def _apply(self, override: Override, cfg: DictConfig, base: Base) -> None:
        key, line = override.key_or_group, str(override.input_line)
        if key in RESERVED:
            raise RequestError(f"{line}: {RESERVED[key]}")
        if not self._has(key, base, cfg):
            raise RequestError(self._unknown(key, line, cfg, base.choices))
        try:
            OmegaConf.update(cfg, key, override.value(), merge=True, force_add=True)
        except ERRORS as error:
            raise RequestError(f"{line}: {_first_line(error)}") from error

    def _has(self, key: str, base: Base, cfg: DictConfig) -> bool:
        """Whether what is made of a base has a key, or its constructor an argument of that name."""
        group, _, knob = key.partition(".")
        if key in base.values or key in _keys(cfg):
            return True
        return group in base.choices and _takes(cfg[group].get("_target_"), knob)

    def _unknown(self, key: str, line: str, cfg: DictConfig, choices: dict[str, str]) -> str:
        """What to say of a key that does not exist: who has it, or the nearest key that does exist."""
        group, _, knob = key.partition(".")
        if group in choices:
            line = f"{group}={choices[group]} {line}"
            owners = [word for word in self.words[group] if knob in self._node(group, word)]
            if owners:
                return f"{line}: {choices[group]} has no {knob}; it belongs to {', '.join(owners)}"
        takes = signature(cfg[group].get("_target_")) if group in choices else None
        if takes is not None and knob in takes.parameters:
            return f"{line}: is not free, cnnlab sets it"
        keys = [known for known in _keys(cfg) if not known.endswith("_target_") and known not in choices]
        if takes is not None:
            keys += [f"{group}.{parameter}" for parameter in takes.parameters]
        leaves = {known.rpartition(".")[2]: known for known in reversed(keys)}
        near = nearest(key, keys) or leaves.get(nearest(key.rpartition(".")[2], leaves) or "")
        return f"{line}: no such key" + (f", did you mean '{near}'?" if near else "")

    def _node(self, group: str, word: str) -> Any:
        loaded = self.loader.repository.load_config(f"{group}/{word}")
        return loaded.config if loaded is not None else {}


def _takes(target: Any, knob: str) -> bool:
    """Whether the constructor a node names has this option, though its YAML does not list it."""
    found = signature(target)
    if found is None or "." in knob:
        return False
    if knob in found.parameters:
        return found.parameters[knob].default is not REQUIRED  # what is required, cnnlab supplies
    return found.accepts_any


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """Dotted keys and values, interpolations as they are written."""
    return flatten(cast(dict[str, Any], OmegaConf.to_container(cfg)))


def _keys(cfg: DictConfig) -> list[str]:
    return [*map(str, cfg), *_flat(cfg)]


def _resolved(cfg: DictConfig, choices: dict[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in map(str, cfg):
        try:
            node = OmegaConf.select(cfg, key, throw_on_missing=True)
            is_node = OmegaConf.is_config(node)
            tree[key] = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if is_node else node
        except OmegaConfBaseException as error:
            choice = f"{key}={choices[key]} " if key in choices else ""
            raise RequestError(f"{choice}{error.full_key or key}: {_first_line(error)}") from error
    return tree


def _first_line(error: BaseException) -> str:
    """What Hydra or OmegaConf found wrong, without its advice on how to add the key after all."""
    cause = error.__cause__ if not str(error).strip() and error.__cause__ else error
    return " ".join(str(cause).split("\n")[0].split()) or type(cause).__name__
