"""Configuration -> network: a model made with the convolution, activation and pooling that were chosen."""

import functools
import logging
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnlab.allowed import RequestError
from cnnlab.config import Config, default_words
from cnnlab.refusals import build
from cnnlab.registry import available, factory, node
from cnnlab.signature import signature

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn

log = logging.getLogger("cnnlab")

# The groups that a model is made of, each with arguments to build one on its own.
PARTS: dict[str, tuple[Any, ...]] = {"conv": (16, 16, 1), "activation": (), "pooling": ()}


def build_net(
    config: Config, input_shape: tuple[int, ...], classes: int, *, width: float | None = None
) -> "nn.Module":
    """The network of a configuration for images of a shape, with `width`, if given, for its model.width.

    With activation.first_layers=k only the first k activations are of the chosen word, the others of the
    default one: models ask for them in the order of their layers.
    """
    model, activation = dict(config.tree["model"]), dict(config.tree["activation"])
    if width is not None:
        model["width"] = width
    first_layers = activation.pop("first_layers", None)
    config = replace(config, tree=config.tree | {"model": model, "activation": activation})
    for group in ("activation", "pooling"):
        build(config, (group,))  # what it refuses is known though a model may not ask for it
    calls: Counter[str] = Counter()

    def part(group: str, /, *args: Any, **kwargs: Any) -> Any:
        calls[group] += 1
        if group == "activation" and first_layers is not None and calls[group] > first_layers:
            return factory(node(group, default_words()[group]))()
        if "groups" in config.tree[group]:  # a grouped convolution has groups of its own
            kwargs.pop("groups", None)
        for knob in config.tree[group].keys() & kwargs.keys():
            raise RequestError(f"{config.says(group, knob)}: is not free, {config.says('model')} sets it")
        return build(config, (group,), *args, **kwargs)

    parts = {group: functools.partial(part, group) for group in PARTS}
    net = build(config, ("model", *PARTS), tuple(input_shape), classes, **parts)
    for group, arguments in PARTS.items():
        word = config.choices.get(group, default_words()[group])
        if not calls[group] and word != default_words()[group]:
            build(config, (group,), *arguments)  # its knobs are judged all the same
            model_word = config.choices.get("model", "?")
            log.warning("model=%s has no %s: %s=%s changes nothing", model_word, group, group, word)
    return net


def with_default_parts(config: Config) -> Config:
    """The same configuration with the default convolution, activation and pooling."""
    config = with_standard_conv(config)
    words = {group: default_words()[group] for group in PARTS if group != "conv"}
    nodes = {group: node(group, word) for group, word in words.items()}
    return replace(config, tree=config.tree | nodes, choices=config.choices | words)


def with_standard_conv(config: Config) -> Config:
    """The same configuration with conv=standard; what was set beside the word (conv.bias=false) is kept."""
    word = default_words()["conv"]
    standard = node("conv", word)
    chosen = config.choices.get("conv", word)
    own = node("conv", chosen) if chosen in available("conv") else {}
    takes = signature(standard["_target_"])
    assert takes is not None
    kept = {k: v for k, v in config.tree["conv"].items() if k in takes.parameters and k not in own}
    return replace(
        config, tree=config.tree | {"conv": standard | kept}, choices=config.choices | {"conv": word}
    )
