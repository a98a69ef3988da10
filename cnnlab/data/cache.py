"""Decoded data sets on disk: what one process has decoded, all others map into their memory.

    $CNNLAB_CACHE (without it $XDG_CACHE_HOME/cnnlab, ~/.cache/cnnlab)
      <Class>-<hash of its knobs and the folder of its files>/
        <hash of the files' sizes and times, and of the code that reads them>/
          contents.json train_images.npy train_labels.npy test_images.npy test_labels.npy

Mapped pages are read once and shared by all the jobs of a machine; who writes to them gets a copy of his own.
All of it may be deleted at any time. Where it can't be written, the data are decoded in memory.
"""

import contextlib
import fcntl
import hashlib
import inspect
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch

from cnnlab.atomic import replacing

log = logging.getLogger("cnnlab")

Examples = tuple[Any, Any]  # images, labels


class Data(NamedTuple):
    """What a source gives: the two parts that its `load()` returns, and what it then tells of them."""

    train: Examples
    test: Examples | None
    class_names: list[str]
    targets: str = "class"
    superclasses: list[int] | None = None


TOLD = Data._fields[2:]


def load(source: Any) -> Data:
    """The source's data: mapped from the cache, into which they are put where they are not there yet.

    A source takes part by a method `files()`, which tells what it reads; the others are loaded in memory. Of
    several processes that ask at once, one decodes and the others wait.
    """
    knobs = dict(vars(source))  # as long as they are nothing else: loading may add what it finds
    entry = _entry(source, knobs)
    if entry is None:
        return _decoded(source)
    if (kept := _read(entry)) is not None:
        return kept
    with _alone(entry.parent):
        if (kept := _read(entry)) is not None:
            return kept
        data = _decoded(source)
        if _entry(source, knobs) != entry:  # the files changed meanwhile
            return data
        try:
            _write(entry, data)
        except (OSError, TypeError, ValueError) as error:
            log.debug("%s: the decoded data are not kept: %s", entry, error)
        return _read(entry) or data


def _decoded(source: Any) -> Data:
    train, test = source.load()
    superclasses = getattr(source, "superclasses", None)
    return Data(
        train,
        test,
        list(source.class_names),
        getattr(source, "targets", "class"),
        None if superclasses is None else [int(label) for label in superclasses],
    )


def _entry(source: Any, knobs: Mapping[str, Any]) -> Path | None:
    """The folder of a source's data; None where there can't be one."""
    if not callable(getattr(source, "files", None)):
        return None
    files = [Path(file).absolute() for file in source.files()]
    try:
        kind = type(source)
        folder = os.path.commonpath([file.parent for file in files])
        asked = [kind.__module__, kind.__qualname__, knobs, folder]
        stats = [(os.path.realpath(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        code = sorted({inspect.getfile(parent) for parent in kind.__mro__[:-1]})
        code += [__file__, str(Path(__file__).with_name("decode.py"))]
        state = [stats, [_digest(Path(file).read_bytes()) for file in code], PIL.__version__]
        identity, version = (_digest(json.dumps(x, default=os.fspath).encode()) for x in (asked, state))
        return _place() / f"{kind.__name__}-{identity}" / version
    except (OSError, TypeError, ValueError, RuntimeError) as error:  # knobs of no plain kind, no home, ...
        log.debug("%s: its decoded data can't be kept: %s", type(source).__name__, error)
        return None


def _place() -> Path:
    if place := os.environ.get("CNNLAB_CACHE"):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "cnnlab")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While nobody else writes there; where no lock can be had, nothing can be written either."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((folder / "lock").open("w")), fcntl.LOCK_EX)
        yield


def _read(entry: Path) -> Data | None:
    """What is kept in a folder, mapped; None where anything is missing, torn or not what was written."""
    try:
        contents = json.loads((entry / "contents.json").read_text())
        arrays = {}
        for name, form in contents["arrays"].items():
            array = np.load(entry / f"{name}.npy", mmap_mode="c")  # whoever writes to it gets a copy
            if _form(array) != form:
                return None
            arrays[name] = torch.from_numpy(array)
        train = arrays["train_images"], arrays["train_labels"]
        test = (arrays["test_images"], arrays["test_labels"]) if "test_images" in arrays else None
        return Data(train, test, *(contents[name] for name in TOLD))
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(entry: Path, data: Data) -> None:
    """Put data in their folder, in place of what was kept of other versions of the files."""
    parts = {"train": data.train} | ({} if data.test is None else {"test": data.test})
    arrays = {
        f"{part}_{name}": np.asarray(array)
        for part, examples in parts.items()
        for name, array in zip(("images", "labels"), examples, strict=True)
    }
    contents = {name: getattr(data, name) for name in TOLD}
    contents["arrays"] = {name: _form(array) for name, array in arrays.items()}
    for old in entry.parent.iterdir():
        if old.is_dir():  # mapped by others it lives on until they end
            shutil.rmtree(old, ignore_errors=True)
    with replacing(entry) as part:
        try:
            part.mkdir()
            for name, array in arrays.items():
                with (part / f"{name}.npy").open("wb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())  # a machine that loses power must not leave zeros behind
            (part / "contents.json").write_text(json.dumps(contents))
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _form(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), *array.shape]
