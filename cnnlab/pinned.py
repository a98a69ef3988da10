"""What moves is held: a branch of huggingface.co becomes its commit, where configurations are frozen."""

import functools
from ast import ClassDef

from cnnlab.config import Config
from cnnlab.data.repository import commit_of, is_repository
from cnnlab.refusals import refusals
from cnnlab.signature import Definition, ancestry, find

HUB = "cnnlab.data.hub.Hub"  # by name: the class itself takes torch


def pinned(config: Config) -> Config:
    """The configuration as whoever asks for it later gets it, with the same data."""
    node = config.tree["dataset"]
    asked, path = node.get("revision"), node.get("path")
    if not (is_repository(path) and derives(node["_target_"], HUB)):
        return config
    with refusals(config, "dataset"):
        commit = commit_of(path, asked, download=node.get("download") is not False)
    if commit == asked:
        return config
    overrides = [line for line in config.overrides if not line.startswith("dataset.revision=")]
    return Config(
        config.tree | {"dataset": node | {"revision": commit}},
        config.choices,
        config.values | {"dataset.revision": commit},
        [*overrides, f"dataset.revision={commit}"],
    )


@functools.cache
def derives(target: str, ancestor: str) -> bool:
    """Whether a class is another, or has it among its bases, read from source.

    >>> derives("cnnlab.data.cifar.CIFAR100", "cnnlab.data.cifar.CIFAR10")
    True
    """
    found = find(target, set())
    line = ancestry(found) if isinstance(found, Definition) else ()
    return any(
        isinstance(of.node, ClassDef) and f"{of.module.name}.{of.node.name}" == ancestor for of in line
    )
