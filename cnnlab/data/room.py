"""Where decoded images go: into memory, else into a file of the cache that is mapped, else nowhere."""

import contextlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

log = logging.getLogger("cnnlab")


class Room(NamedTuple):
    """Gives an array for the images of each part; a mapped one is `folder`/<part>_images.npy.

    There is none for images that are to be streamed.

    >>> Room(None, True)("train", (2, 1, 8, 8)).shape
    (2, 1, 8, 8)
    """

    folder: Path | None  # None: there is no cache
    in_memory: bool | str

    def __call__(self, part: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 to be filled.

        Raises: OSError, in one line, where the cache has no room for it.
        """
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / f"{part}_images.npy").unlink()  # of an earlier attempt
        if self.in_memory is True or (self.in_memory == "auto" and fits(shape)):
            return np.empty(shape, np.uint8)
        size = f"{math.ceil(math.prod(shape) / 1e6):,} MB"
        with self.writing(f"{part}_images.npy", f"the {part} images take {size}") as file:
            where = f"{size} in {cache_folder()}"
            log.warning(
                "%s images take %s; batches are read there, slowly if most are not in memory", part, where
            )
            array = np.lib.format.open_memmap(file, "w+", np.dtype(np.uint8), shape)
            with file.open("r+b") as written:
                allocate(written.fileno(), file.stat().st_size)
            return array

    def streams(self, shape: tuple[int, ...]) -> bool:
        """Whether images of a shape are to be streamed."""
        if self.in_memory == "auto":
            return not fits(shape) and math.prod(shape) > free_on_disk() // 2
        return self.in_memory == "stream"

    @contextlib.contextmanager
    def writing(self, name: str, what: str) -> Iterator[Path]:
        """A file of the folder, while it is written.

        Raises: OSError, in one line, where it can't be.
        """
        try:
            if self.folder is None:
                raise OSError("what its files are can't be told")
            self.folder.mkdir(parents=True, exist_ok=True)
            yield self.folder / name
        except OSError as error:
            where = f"{what} in {cache_folder()} (or where CNNLAB_CACHE says)"
            knob = f"in_memory={str(self.in_memory).lower()}"
            raise OSError(f"{knob}: {where}: {error.strerror or error}") from error


IN_MEMORY = Room(None, True)


def fits(shape: tuple[int, ...]) -> bool:
    """Whether an array of bytes takes at most half of the memory that is free."""
    return math.prod(shape) <= free_bytes() // 2


def free_bytes() -> int:
    """The memory that this process may still take, as far as the system tells."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # "max" where a container may take all
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found)


def free_on_disk() -> int:
    """The bytes that the cache may still take."""
    folder = cache_folder()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def allocate(descriptor: int, size: int) -> None:
    """Take the disk's room for a file; where a mapped page found none later, the process would be killed."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def check_in_memory(value: Any) -> bool | str:
    if value not in ("auto", "stream") and not isinstance(value, bool):
        raise ValueError(f"in_memory must be auto, true, false or stream, got {value!r}")
    return value


def cache_folder() -> Path:
    """$CNNLAB_CACHE, without it $XDG_CACHE_HOME/cnnlab or ~/.cache/cnnlab."""
    if place := os.environ.get("CNNLAB_CACHE"):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "cnnlab")


def picked(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """A copy of some images; one that doesn't fit into memory lies in a nameless file."""
    shape = (len(chosen), *images.shape[1:])
    if images.device.type != "cpu" or fits(shape):
        return images[chosen]
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        allocate(file.fileno(), math.prod(shape))
        pixels = np.memmap(file, np.uint8, "r+", shape=shape)  # outlives the file's name
    return torch.index_select(images, 0, chosen, out=torch.from_numpy(pixels))
