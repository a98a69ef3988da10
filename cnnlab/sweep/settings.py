"""How a sweep is run: what its `hydra/launcher`, `hydra/sweeper` and their knobs ask for."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cnnlab.allowed import RequestError, did_you_mean
from cnnlab.compose import ERRORS, Composer
from cnnlab.registry import factory
from cnnlab.sweep.job import Launcher

OURS = ("cnnlab.", "hydra._internal.core_plugins.basic_sweeper.")  # the latter: every combination
HEEDED = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")


class Settings(NamedTuple):
    launcher: Launcher
    sweeper: dict[str, Any]


def settings(composer: Composer, lines: Sequence[str]) -> Settings:
    """The launcher, and the node of the sweeper, that the lines of a sweep ask for.

    Raises:
        RequestError: a line sets a key of Hydra's that does not exist or that nothing here would heed.
    """
    overrides = composer.parse(lines)
    hydras = [override for override in overrides if override.is_hydra_override()]
    for override in hydras:
        if not override.key_or_group.startswith(HEEDED):
            raise RequestError(f"{override.input_line}: of Hydra's keys only launcher and sweeper are heeded")
        if override.is_sweep_override():
            raise RequestError(f"{override.input_line}: a sweep has one launcher and one sweeper")
        if override.key_or_group in ("hydra/launcher", "hydra/sweeper"):
            _check_word(composer, override.key_or_group, override.value())
    asked = [str(override.input_line) for override in hydras]
    # An experiment may have a say too.
    asked += composer.chosen(o for o in overrides if not o.is_sweep_override())
    try:
        composed = composer.loader.load_configuration(composer.config_name, asked, RunMode.MULTIRUN)
    except ERRORS as error:
        raise RequestError(" ".join(str(error).split("\n")[0].split())) from error
    word = composed.hydra.runtime.choices["hydra/launcher"]
    return Settings(_launcher(word, _node(composed, "launcher")), _node(composed, "sweeper"))


def _check_word(composer: Composer, group: str, word: Any) -> None:
    """Refuse what is not there, and what comes with Hydra or its plugins but is not heeded here."""
    loader, words = composer.loader, []
    for other in loader.get_group_options(group):
        found = loader.repository.load_config(f"{group}/{other}")
        if found is not None and str(OmegaConf.select(found.config, "_target_")).startswith(OURS):
            words.append(other)
    if word not in words:
        near = did_you_mean(str(word), words)
        raise RequestError(f"{group} has no {word!r}; there are {', '.join(words)}{near}")


def _node(composed: DictConfig, part: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(composed.hydra[part], resolve=True))


def _launcher(word: str, node: dict[str, Any]) -> Launcher:
    if not str(node["_target_"]).startswith("cnnlab."):
        raise RequestError(f"hydra/launcher={word}: only cnnlab's own launchers keep jobs apart")
    try:
        return factory(node)()
    except ValueError as error:
        knob, _, wrong = str(error).partition(" ")
        raise RequestError(f"hydra/launcher={word} hydra.launcher.{knob}={node[knob]}: {wrong}") from error
