"""Decoded data sets on disk: what one process has decoded, all others map into their memory.

    $CNNLAB_CACHE (without it $XDG_CACHE_HOME/cnnlab, ~/.cache/cnnlab)
      <Class>-<hash of its knobs and the folder of its files>/
        <hash of the files' sizes and times, and of the code that reads them>/
          contents.json train_images.npy train_labels.npy test_images.npy test_labels.npy
          (of images that are streamed train_records.npy and train_starts.npy)

Mapped pages are read once and shared by all the jobs of a machine; who writes to them gets a copy of his own.
All of it may be deleted at any time. Where it can't be written, the data are decoded in memory; images that
don't fit there are decoded straight into their file.
"""

import contextlib
import fcntl
import hashlib
import inspect
import json
import logging
import mmap
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch

from cnnlab.data import promise
from cnnlab.data.room import Room, cache_folder
from cnnlab.data.stream import Images, Stream

log = logging.getLogger("cnnlab")

MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0  # which Python's mmap has no name for

Examples = tuple[Any, Any]  # images, labels


class Data(NamedTuple):
    """What a source gives: the two parts that its `load()` returns, and what it then tells of them."""

    train: Examples
    test: Examples | None
    class_names: list[str]
    targets: str = "class"
    superclasses: list[int] | None = None


TOLD = Data._fields[2:]
DECODING = ("decode.py", "encoded.py", "stream.py")


def load(source: Any) -> Data:
    """The source's data: mapped from the cache, into which they are put where they are not there yet.

    A source takes part by a method `files()`, which tells what it reads; the others are loaded in memory. One
    with a knob `in_memory` gets the room for its images as an argument of `load`. Of several processes that
    ask at once, one decodes and the others wait.
    """
    knobs = dict(vars(source))  # as long as they are nothing else: loading may add what it finds
    in_memory = knobs.pop("in_memory", True)  # how it is loaded, not what it is
    knobs.pop("download", None)
    entry = _entry(source, knobs)
    if entry is None:
        return _decoded(source, Room(None, in_memory))
    part = entry.with_name(f"{entry.name}.tmp")
    room = Room(part, in_memory)
    if (kept := _read(entry, room)) is not None:
        return kept
    with _alone(entry.parent):
        if (kept := _read(entry, room)) is not None:
            return kept
        _clear(entry.parent)
        try:
            data = _decoded(source, room)
            if _entry(source, knobs) != entry:  # the files changed meanwhile
                return data
            try:
                _write(part, data)
                part.rename(entry)
            except (OSError, TypeError, ValueError) as error:
                log.debug("%s: the decoded data are not kept: %s", entry, error)
            return _read(entry, room) or data
        finally:
            shutil.rmtree(part, ignore_errors=True)  # what is mapped of it lives on


def _decoded(source: Any, room: Room) -> Data:
    train, test = promise.parts(source.load(room) if hasattr(source, "in_memory") else source.load())
    names = promise.class_names(source)
    superclasses = promise.superclasses(source, len(names))
    return Data(train, test, names, getattr(source, "targets", "class"), superclasses)


def _entry(source: Any, knobs: Mapping[str, Any]) -> Path | None:
    """The folder of a source's data; None where there can't be one."""
    if not callable(getattr(source, "files", None)):
        return None
    files = [os.path.abspath(file) for file in source.files()]
    try:
        kind = type(source)
        folders = {folder: os.path.realpath(folder) for folder in dict.fromkeys(map(os.path.dirname, files))}
        asked = [kind.__module__, kind.__qualname__, knobs, os.path.commonpath(folders)]
        stats = [[*folders.values()], [_stat(file) for file in files]]
        code = sorted({inspect.getfile(parent) for parent in kind.__mro__[:-1]})
        code += [__file__, *(str(Path(__file__).with_name(name)) for name in DECODING)]
        state = [stats, [_digest(Path(file).read_bytes()) for file in code], PIL.__version__]
        identity, version = (_digest(json.dumps(x, default=os.fspath).encode()) for x in (asked, state))
        return cache_folder() / f"{kind.__name__}-{identity}" / version
    except (OSError, TypeError, ValueError, RuntimeError) as error:  # knobs of no plain kind, no home, ...
        log.debug("%s: its decoded data can't be kept: %s", type(source).__name__, error)
        return None


def _stat(file: str) -> tuple[str, int, int]:
    """What a file is: a question to the system is all, for there may be a million."""
    found = os.lstat(file)
    if stat.S_ISLNK(found.st_mode):
        file, found = os.path.realpath(file), os.stat(file)
    return file, found.st_size, found.st_mtime_ns


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


def _read(entry: Path, room: Room) -> Data | None:
    """What is kept in a folder, mapped; None where anything is missing, torn or not what was written.

    Nor are images streamed for which there is room by now.
    """
    try:
        contents = json.loads((entry / "contents.json").read_text())
        arrays = {}
        for name, form in contents["arrays"].items():
            path = entry / f"{name}.npy"
            array = np.load(path, mmap_mode="r")
            if _form(array) != form:
                return None
            arrays[name] = _for_oneself(path, array.offset, array.dtype).reshape(array.shape)
        parts: dict[str, Examples] = {}
        for part, kind in contents["parts"].items():
            images: Images
            if kind is None:
                images = torch.from_numpy(arrays[f"{part}_images"])
            else:
                images = Stream(arrays[f"{part}_records"], arrays[f"{part}_starts"], **kind)
                if not room.streams(images.shape):
                    return None
            parts[part] = images, torch.from_numpy(arrays[f"{part}_labels"])
        return Data(parts["train"], parts.get("test"), *(contents[name] for name in TOLD))
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _for_oneself(path: Path, offset: int, dtype: np.dtype) -> np.ndarray:
    """What a file holds: whoever writes to it gets a copy of the page.

    No memory is set aside for such copies, as NumPy's own mode "c" does: more than there is, is refused.
    """
    flags = mmap.MAP_PRIVATE | MAP_NORESERVE
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(pages, dtype, offset=offset)


def _clear(folder: Path) -> None:
    """Remove what is kept of other versions of the files; mapped by others it lives on until they end."""
    with contextlib.suppress(OSError):
        for old in folder.iterdir():
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, data: Data) -> None:
    """Put data into a folder, but for the images that were decoded into it."""
    parts: dict[str, Examples] = {"train": data.train} | ({} if data.test is None else {"test": data.test})
    contents = {name: getattr(data, name) for name in TOLD} | {"parts": {}}
    arrays = {}
    for part, (images, labels) in parts.items():
        arrays[f"{part}_labels"] = np.asarray(labels)
        if isinstance(images, Stream):
            arrays |= {f"{part}_records": images.records, f"{part}_starts": images.starts}
        else:
            arrays[f"{part}_images"] = np.asarray(images)
        contents["parts"][part] = images.kind if isinstance(images, Stream) else None
    contents["arrays"] = {name: _form(array) for name, array in arrays.items()}
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        mapped = path.exists()
        with path.open("r+b" if mapped else "wb") as file:
            if not mapped:
                np.save(file, array, allow_pickle=False)
                file.flush()
            os.fsync(file.fileno())  # a machine that loses power must not leave zeros behind
    (folder / "contents.json").write_text(json.dumps(contents))


def _form(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), *array.shape]
