"""Runs as their folders record them: found by folder or id, read without torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cnnlab.allowed import RequestError
from cnnlab.config import Config, shown
from cnnlab.result import Result
from cnnlab.verbs.parser import Parser


@dataclass(frozen=True)
class Run:
    """What a run's folder says: its configuration, frozen when it began, and its result."""

    folder: Path
    config: Config
    result: Result


def find(name: str, output_dir: str = "outputs") -> Run:
    """The run in a folder, or the one below `output_dir` whose id begins with `name`.

    Raises:
        RequestError: there is none, or more than one, or its files cannot be read.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _by_id(name, Path(output_dir))
    tree: Any = None
    try:
        tree = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    except FileNotFoundError:
        pass  # said below, like a missing result
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise RequestError(f"{folder}: config.yaml cannot be read: {' '.join(str(error).split())}") from error
    for needed in ("result.json", "config.yaml"):
        if not (folder / needed).is_file():
            raise RequestError(f"{folder}: no {needed}, so no run")
    result = Result.read(folder)
    if result is None or not isinstance(tree, dict) or not tree:
        broken = "result.json" if result is None else "config.yaml"
        raise RequestError(f"{folder}: {broken} cannot be read")
    return Run(folder, Config(tree, result.choices, result.values, result.overrides), result)


def _by_id(name: str, output_dir: Path) -> Path:
    """The folder `output_dir/<name>/<summary>-<id>` of the id that begins so."""
    if not re.fullmatch(r"[0-9a-f]{1,10}", name):
        raise RequestError(
            f"{shown(name)}: neither a folder nor an id, which has up to 10 digits of 0-9 and a-f"
        )
    ids = re.compile(rf"-{name}[0-9a-f]{{{10 - len(name)}}}$")
    found = sorted(folder for folder in output_dir.glob("*/*") if ids.search(folder.name) and folder.is_dir())
    if not found:
        raise RequestError(f"{name}: neither a folder nor the beginning of an id below {output_dir}")
    if len(found) > 1:
        raise RequestError(
            f"{name}: {len(found)} runs have an id that begins so: {', '.join(map(str, found))}"
        )
    return found[0]


class RunParser(Parser):
    """The arguments of a verb that takes runs."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(verb, description)
        self.add_argument("--output-dir", default="outputs", metavar="DIR", help="where ids are looked for")
