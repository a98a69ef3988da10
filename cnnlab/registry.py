"""The folder is the registry: `conf/<group>/<word>.yaml` names a class and its knobs; words become objects.

>>> import cnnlab
>>> cnnlab.available("activation")[:2]
['avr', 'crelu']
>>> cnnlab.create("conv", "standard", 3, 16, 3, padding=1).weight.shape
torch.Size([16, 3, 3, 3])
"""

import functools
import importlib
import inspect
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cnnlab.allowed import RequestError, did_you_mean

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # wheel, or repository

# A `_target_` runs code: only these packages, and what the user lists in `trusted`, may be named.
TRUSTED = ("cnnlab", "torch.nn", "torch.optim", "pytorch_lightning", "torchmetrics")


def available(group: str) -> list[str]:
    """The words of a group, sorted: `available("conv")` -> ['decoupled_ball', ...]."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def node(group: str, word: str) -> dict[str, Any]:
    """The YAML behind a word as a plain dict: `_target_` and the knobs with their defaults."""
    from omegaconf import OmegaConf  # the parser of the command line: 1e-3 is a number to it, not to YAML 1.1

    path = CONF / group / f"{word}.yaml"
    if not path.is_file():
        words = available(group)
        if not words:
            groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
            raise ValueError(f"no group {group!r}{did_you_mean(group, groups)}")
        raise ValueError(f"{group} has no {word!r}; there are {', '.join(words)}{did_you_mean(word, words)}")
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))


def check_config_dir(folder: Path) -> None:
    """A user's YAML may add words, not shadow cnnlab's: one name must mean one thing in every result."""
    if not folder.is_dir():
        raise RequestError(f"--config-dir {folder}: no such folder")
    if (folder / "config.yaml").exists():
        raise RequestError(
            f"--config-dir {folder}: config.yaml: the root is cnnlab's; an experiment can change it"
        )
    for path in sorted(CONF.glob("*/**/*.yaml")):
        ours = path.relative_to(CONF)
        if (folder / ours).exists():
            raise RequestError(
                f"--config-dir {folder}: {ours}: {ours.parent}={ours.stem} is a word of cnnlab already"
            )


def create(group: str, word: str, *args: Any, **overrides: Any) -> Any:
    """Build a choice of a group by its word, as the command line would, with overrides.

    >>> create("conv", "decoupled_tanh", 3, 16, 3, padding=1, rho=2.0)  # doctest: +ELLIPSIS
    TanhConv2d(3, 16, kernel_size=(3, 3), ...)
    """
    return factory({**node(group, word), **overrides})(*args)


def is_trusted(path: str, trusted: Iterable[str] = ()) -> bool:
    """Whether a dotted path lies in a package whose classes may be built."""
    return any(path == package or path.startswith(f"{package}.") for package in (*TRUSTED, *trusted))


def locate(target: str, trusted: Iterable[str] = ()) -> Any:
    """The class or function a `_target_` names.

    Everything before the last dot must import as a module, and the object must be defined in a trusted
    package: a prefix alone would admit `cnnlab.some_module.torch.load`.
    """
    if not is_trusted(target, trusted):
        raise ValueError(f"_target_={target}: only classes of {', '.join((*TRUSTED, *trusted))} may be built")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_={target}: {error}") from error
    if not (inspect.isclass(found) or isinstance(found, types.FunctionType)):
        raise ValueError(f"_target_={target}: not a class or a function")
    if not is_trusted(found.__module__, trusted):
        raise ValueError(f"_target_={target}: it is defined in {found.__module__}, which is not trusted")
    return found


def factory(choice: Mapping[str, Any], trusted: Iterable[str] = ()) -> functools.partial[Any]:
    """A partial of the class a node names: models receive their conv and activation like this."""
    knobs = dict(choice)
    return functools.partial(locate(knobs.pop("_target_"), trusted), **knobs)
