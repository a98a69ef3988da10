"""Finds results at any depth: `result.json` alone tells what a run is, whoever made it and when."""

import os
from collections.abc import Iterable, Iterator
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


def find(folders: Iterable[Path]) -> Found:
    """All results in the folders, at any depth, each once, in the order of their paths."""
    runs: list[Run] = []
    broken: list[str] = []
    where = {path for folder in folders for path in _run_folders(os.path.realpath(folder), broken)}
    for path in map(Path, sorted(where)):
        result = Result.read(path)
        if result is not None and _is_sound(result):
            runs.append(Run(result, path))
        else:
            broken.append(f"{path}/result.json: not a result")
    return Found(runs, broken)


def _run_folders(folder: str, broken: list[str]) -> Iterator[str]:
    """Folders with a result.json; what lies below one (checkpoints, W&B's files) is not looked at."""
    try:
        with os.scandir(folder) as opened:
            entries = list(opened)
    except OSError as error:
        broken.append(f"{folder}: {error.strerror}")
        return
    if any(entry.name == "result.json" for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _run_folders(entry.path, broken)


def _is_sound(result: Result) -> bool:
    """Whether each field is of its type: what others wrote may be anything that JSON can be."""
    return all(isinstance(getattr(result, name), kinds) for name, kinds in KINDS.items())


def _kinds(hint: Any) -> tuple[type, ...]:
    """The classes of a field's values.

    >>> _kinds(dict[str, float]), _kinds(float | None)
    ((<class 'dict'>,), (<class 'float'>, <class 'int'>, <class 'NoneType'>))
    """
    if isinstance(hint, UnionType):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    return (float, int) if hint is float else (get_origin(hint) or hint,)


KINDS = {name: _kinds(hint) for name, hint in get_type_hints(Result).items()}
