"""Finds results at any depth: `result.json` alone tells what a run is, whoever made it and when."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from cnnlab.result import Result


class Run(NamedTuple):
    result: Result
    folder: Path


class Found(NamedTuple):
    runs: list[Run]
    broken: list[str]  # what could not be read, and why


def runs_below(folders: Iterable[Path]) -> Found:
    """All results in the folders, at any depth, each once, in the order of their paths."""
    runs: dict[str, Result] = {}
    broken: list[str] = []
    for folder in {os.path.realpath(folder) for folder in folders}:
        _look(folder, runs, broken)
    return Found([Run(runs[path], Path(path)) for path in sorted(runs)], sorted(set(broken)))


def _look(folder: str, runs: dict[str, Result], broken: list[str]) -> None:
    """Collect the results in a folder; what lies below a run (checkpoints, W&B's files) is not looked at."""
    try:
        with os.scandir(folder) as opened:
            entries = list(opened)
    except OSError as error:
        broken.append(f"{folder}: {error.strerror}")
        return
    if any(entry.name == "result.json" for entry in entries):
        result = Result.read(Path(folder))
        if result is not None and _is_sound(result):
            runs[folder] = result
            return
        broken.append(f"{folder}/result.json: not a result")
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _look(entry.path, runs, broken)


def _is_sound(result: Result) -> bool:
    """Whether each field is of its type: what others wrote may be anything that JSON can be."""
    values = {name: getattr(result, name) for name in KINDS}
    right = all(isinstance(values[name], kinds) for name, kinds in KINDS.items())
    flags = {name for name, value in values.items() if isinstance(value, bool) and bool not in KINDS[name]}
    texts = (value for name in ("choices", "versions", "sources") for value in values[name].values())
    return right and not flags and all(isinstance(value, str) for value in texts)


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes of a field's values.

    >>> _kinds(dict[str, float]), _kinds(float | None)
    ((<class 'dict'>,), (<class 'float'>, <class 'int'>, <class 'NoneType'>))
    """
    if isinstance(hint, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    return (float, int) if hint is float else (get_origin(hint) or hint,)


KINDS = {name: _kinds(hint) for name, hint in get_type_hints(Result).items()}
