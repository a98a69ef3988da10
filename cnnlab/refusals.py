"""What a constructor refuses becomes one line that begins with the choice and the dotted key."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config, shown
from cnnlab.registry import factory


def build(config: Config, groups: tuple[str, ...], /, *args: Any, **kwargs: Any) -> Any:
    """Build the choice of the first group; the others' choices are built within it."""
    node = config.tree[groups[0]]
    with refusals(config, *groups):
        for knob in node.keys() & kwargs.keys():
            raise ValueError(f"{knob} is not free, cnnlab sets it")
        return factory(node, config.tree["trusted"])(*args, **kwargs)


@contextlib.contextmanager
def refusals(config: Config, *groups: str) -> Iterator[None]:
    """Turn what a choice refuses into a RequestError that begins with choice and key.

    The first group is the one that is built; a knob of the others is blamed where the message begins with it.
    """
    try:
        yield
    except RequestError:
        raise  # a choice within a choice has already said it
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        group, knob = _blamed(config, groups, message)
        if knob is not None:
            message = re.sub(rf"^{knob}(=\S+:)? ", "", message)
        raise RequestError(f"{config.says(group, knob)}: {message}") from error


def _blamed(config: Config, groups: tuple[str, ...], message: str) -> tuple[str, str | None]:
    """The group and knob a message is about: one it begins with, else names, else whose value it quotes.

    What was set comes before what has its default; where the message tells nothing, the only one set is it.
    """
    knobs = [(group, knob) for group in groups for knob in config.tree[group] if knob != "_target_"]
    knobs.sort(key=lambda pair: ".".join(pair) not in config.values)
    first = [(group, knob) for group, knob in knobs if group == groups[0]]
    changed = [pair for pair in first if ".".join(pair) in config.values]
    begins = [(group, knob) for group, knob in knobs if re.match(rf"{knob}\b", message)]
    names = [(group, knob) for group, knob in first if re.search(rf"\b{knob}\b", message)]
    quotes = [
        (group, knob)
        for group, knob in changed or first
        if re.search(rf"(?<![\w.]){re.escape(shown(config.tree[group][knob]))}(?![\w.])", message)
    ]
    only = changed if len(changed) == 1 else []
    return next(iter(begins + names + quotes + only), (groups[0], None))
