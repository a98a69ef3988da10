"""Where decoded images go: into memory or, where they don't fit, into a file of the cache that is mapped."""

import contextlib
import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

log = logging.getLogger("cnnlab")


class Room(NamedTuple):
    """Gives an array for the images of each part; a mapped one is `folder`/<part>_images.npy.

    >>> Room(None, True)("train", (2, 1, 8, 8)).shape
    (2, 1, 8, 8)
    """

    folder: Path | None  # None: there is no cache
    in_memory: bool | str

    def __call__(self, part: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of uint8 to be filled.

        Raises: OSError, in one line, where the cache has no room for it.
        """
        file = self.folder and self.folder / f"{part}_images.npy"
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink()  # of an earlier attempt
        if self.in_memory is True or (self.in_memory == "auto" and fits(shape)):
            return np.empty(shape, np.uint8)
        size = f"{math.ceil(math.prod(shape) / 1e6):,} MB in {cache_folder()}"
        try:
            if file is None:
                raise OSError("what its files are can't be told")
            file.parent.mkdir(parents=True, exist_ok=True)
            log.warning(
                "%s images take %s; batches are read there, slowly if most are not in memory", part, size
            )
            array = np.lib.format.open_memmap(file, "w+", np.dtype(np.uint8), shape)
            with file.open("r+b") as written:
                allocate(written.fileno(), file.stat().st_size)
            return array
        except OSError as error:
            knob = f"in_memory={str(self.in_memory).lower()}: the {part} images take"
            raise OSError(f"{knob} {size} (or where CNNLAB_CACHE says): {error.strerror or error}") from error


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


def allocate(descriptor: int, size: int) -> None:
    """Take the disk's room for a file; where a mapped page found none later, the process would be killed."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def check_in_memory(value: Any) -> bool | str:
    if value != "auto" and not isinstance(value, bool):
        raise ValueError(f"in_memory must be auto, true or false, got {value!r}")
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
