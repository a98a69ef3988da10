"""One run's configuration: resolved, frozen, fingerprinted. `compose.py` makes it from override lines."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from cnnlab.registry import CONF

# Where and how a run is made, not what it is: these do not enter its identity.
CIRCUMSTANCES = (
    *("name", "output_dir", "resume", "trusted", "threads"),
    *("logger", "monitor", "sweep", "experiment"),
)
CIRCUMSTANTIAL_KNOBS = (
    *("trainer.devices", "trainer.enable_progress_bar"),
    *("dataset.in_memory", "dataset.download"),
)

# Texts that need no quotes on the command line, and those that would there be values of another type.
PLAIN = re.compile(r"[\w./:*%@?|+-]+", re.ASCII)
TYPED = re.compile(r"null|true|false|[+-]?(nan|inf|(\d[\d_]*\.?|\.\d)[\d_]*(e[+-]?[\d_]+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Config:
    """One run's resolved configuration, and what distinguishes it from the defaults."""

    tree: dict[str, Any]  # root keys, and for each group a node: `_target_` and knobs
    choices: dict[str, str] = field(default_factory=dict)  # group -> word
    values: dict[str, Any] = field(default_factory=dict)  # dotted key -> value other than the words' own
    overrides: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The first 10 hex digits of SHA-256 over what the run is: the same configuration is the same run."""
        essence = {key: _canonical(value) for key, value in flatten(self.tree).items() if is_essential(key)}
        return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells runs apart without a look at the disk: equal keys are one folder."""
        return self.tree["output_dir"], self.tree["name"], self.id

    @property
    def summary(self) -> str:
        """What differs from the defaults, readable: `conv=decoupled_tanh,ortho_weight=0.1`."""
        defaults = default_words()
        words = {group: word for group, word in self.choices.items() if word != defaults.get(group)}
        changed = {key: value for key, value in (words | self.values).items() if is_essential(key)}
        return ",".join(f"{key}={shown(value)}" for key, value in changed.items()) or "defaults"

    @property
    def folder(self) -> Path:
        """`<output_dir>/<name>/<summary>-<id>`; the id decides, however the summary was put."""
        sweep = Path(self.tree["output_dir"], self.tree["name"])
        readable = re.sub(r"[^\w.,=+-]+", "-", self.summary)[:120]
        return next(sweep.glob(f"*-{self.id}"), sweep / f"{readable}-{self.id}")

    @property
    def is_distributed(self) -> bool:
        """Whether the run is one of several processes."""
        return self.tree["trainer"].get("strategy") == "ddp"

    def says(self, group: str, knob: str | None = None) -> str:
        """How an error about a choice begins: `conv=decoupled_tanh conv.rho=-1`."""
        choice = f"{group}={self.choices.get(group, '?')}"
        return choice if knob is None else f"{choice} {group}.{knob}={shown(self.tree[group].get(knob))}"


def is_essential(key: str) -> bool:
    """Whether a dotted key says what a run is, rather than where and how it is made."""
    return key.partition(".")[0] not in CIRCUMSTANCES and key not in CIRCUMSTANTIAL_KNOBS


@functools.cache
def default_words() -> dict[str, str]:
    """The default word of each group, as conf/config.yaml's defaults list has them."""
    words: dict[str, str] = {}
    for entry in OmegaConf.load(CONF / "config.yaml").defaults:
        if not isinstance(entry, str):
            words |= {group: word for group, word in entry.items() if word and "override" not in group}
    return words


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a nested dictionary; lists are values.

    >>> flatten({"seed": 0, "conv": {"rho": 1.0}})
    {'seed': 0, 'conv.rho': 1.0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def shown(value: Any) -> str:
    """A value as one types it on the command line.

    >>> shown([None, True, 1e-3, "same", "two words", "1", {"a": "true"}])
    "[null,true,0.001,same,'two words','1',{a:'true'}]"
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(map(shown, value))}]"
        case dict():
            return f"{{{','.join(f'{key}:{shown(item)}' for key, item in value.items())}}}"
        case str() if not value.isprintable():  # what is shown is one line
            return repr(value)
        case str() if TYPED.fullmatch(value) or not PLAIN.fullmatch(value):
            from hydra.core.override_parser.types import Quote, QuotedString

            return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def _canonical(value: Any) -> Any:
    """0 and 0.0 are one value, and JSON has no inf."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
