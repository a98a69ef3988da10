"""Images that are decoded where they are read, again in each epoch: they fit neither memory nor the disk.

What is kept of them are records, in a file of the cache: of each image its name, a zero byte, and its file
or, where it lies within a larger one, its bytes as they are encoded.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import DataLoader

from cnnlab.data.encoded import Advance, Called, Encoded, decode, for_each, look
from cnnlab.data.room import cache_folder, free_on_disk
from cnnlab.parallel.machine import cores
from cnnlab.parallel.process import die_with_parent

log = logging.getLogger("cnnlab")

GRACE_S = 30  # for the run to end the step that it is in, if SIGTERM goes to all its processes
TIMED = 16  # images that are decoded to tell what an epoch costs


class Stream:
    """Images as a tensor has them, uint8 (N, C, H, W), each decoded whenever it is read.

    Record i lies between `starts[i]` and `starts[i + 1]` of the bytes `records`; `files` says that images are
    files. `chosen` are the numbers of the images that are meant; without it all are.

    >>> import io
    >>> from PIL import Image
    >>> Image.new("L", (3, 2), 7).save(png := io.BytesIO(), "png")
    >>> record = np.frombuffer(b"dot" + bytes(1) + png.getvalue(), np.uint8)
    >>> kind = {"image_shape": (1, 2, 3), "files": False, "resize": False}
    >>> dots = Stream(np.tile(record, 4), np.arange(5) * len(record), **kind)
    >>> dots.shape, int(dots[:2].sum())
    (torch.Size([4, 1, 2, 3]), 84)
    """

    dtype, ndim, device = torch.uint8, 4, torch.device("cpu")

    def __init__(
        self, records: np.ndarray, starts: np.ndarray, chosen: torch.Tensor | None = None, **kind: Any
    ) -> None:
        self.records, self.starts, self.kind = records, starts, kind
        self.chosen = torch.arange(len(starts) - 1) if chosen is None else chosen
        self.pinned = False

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self), *self.kind["image_shape"]])

    def __len__(self) -> int:
        return len(self.chosen)

    def only(self, chosen: torch.Tensor) -> "Stream":
        """Some of the images, not decoded."""
        return Stream(self.records, self.starts, self.chosen[chosen], **self.kind)

    def to(self, device: torch.device) -> "Stream":
        """The images stay where they are; batches get ready for the way to a GPU."""
        self.pinned = device.type == "cuda"
        return self

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Some of the images, decoded here and now."""
        numbers = self.chosen[index].tolist()
        pixels = np.empty((len(numbers), *self.shape[1:]), np.uint8)

        def read(place: int) -> None:
            start, stop = self.starts[numbers[place] :][:2]
            name, _, rest = self.records[start:stop].tobytes().partition(b"\0")
            encoded = os.fsdecode(rest) if self.kind["files"] else rest
            decode(encoded, os.fsdecode(name), pixels[place], resize=self.kind["resize"])

        for_each(read, len(numbers))
        return torch.from_numpy(pixels)

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """All images in order, some at a time."""
        return self.batches(torch.arange(len(self)).split(size))

    def batches(self, indices: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The images of one index after another, decoded ahead by worker processes.

        Raises: ValueError, in one line, where one is no image; OSError where its file can't be read.
        """
        loader: DataLoader[Any] = DataLoader(
            Answers(self),  # type: ignore[arg-type]
            batch_size=None,
            sampler=(index.tolist() for index in indices),  # a tensor would take a file for the way
            num_workers=max(1, min(workers(), len(indices))),
            pin_memory=self.pinned,
            worker_init_fn=begin,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # else the global one is asked for a seed
        )
        for images in loader:
            if isinstance(images, Exception):
                raise images
            yield images

    def warn(self, part: str) -> None:
        """Say what streaming costs, and what it would take to do without."""
        some = torch.linspace(0, len(self) - 1, min(TIMED, len(self))).long()
        self[some[:1]]  # Pillow loads what it needs
        began = time.perf_counter()
        self[some]  # by one thread: they are few
        cost_s = (time.perf_counter() - began) * len(self) / len(some) / workers()
        size, free = (math.ceil(count / 1e6) for count in (math.prod(self.shape), free_on_disk()))
        log.warning(
            f"{part} images are decoded again in each epoch, which takes {workers()} worker"
            f"{'s' * (workers() > 1)} about {float(f'{cost_s:.2g}'):,g} s; in_memory=false decodes them "
            f"once, into {size:,} MB of the {free:,} MB free in {cache_folder()} (or where CNNLAB_CACHE says)"
        )


Images = torch.Tensor | Stream


class Answers:
    """A stream's batches, or what went wrong with one: of that DataLoader would make a page."""

    def __init__(self, images: Stream) -> None:
        self.images = images

    def __getitem__(self, index: list[int]) -> torch.Tensor | Exception:
        try:
            return self.images[index]
        except Exception as error:
            return error


def workers() -> int:
    """How many processes decode: as many as the run has threads, and no more than there are cores."""
    return min(torch.get_num_threads(), cores())


def begin(worker: int) -> None:
    """A worker ends when the run tells it to, or has ended: signals to all its processes are for the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE_S))
    threading.Thread(target=die_with_parent, daemon=True).start()


class Spool:
    """Writes the records of one part into a file; images are looked at, and decoded later."""

    def __init__(
        self, writing: Callable[[], AbstractContextManager[Path]], shape: Sequence[int], *, resize: bool
    ) -> None:
        self.writing, self.shape, self.resize = writing, tuple(shape), resize
        self.files, self.lengths = False, [0]
        with self.writing() as file, file.open("wb") as written:
            self.header(written)

    def header(self, written: BinaryIO) -> None:
        """NumPy's, which has room for the length to grow."""
        form = {"descr": "|u1", "fortran_order": False, "shape": (sum(self.lengths),)}
        np.lib.format.write_array_header_1_0(written, form)

    def take(self, images: Sequence[Encoded], called: Called, advance: Advance) -> None:
        def check(index: int) -> None:
            look(images[index], called(index), self.shape, resize=self.resize)

        for_each(check, len(images), advance)
        with self.writing() as file, file.open("ab") as written:
            for index, image in enumerate(images):
                self.files = isinstance(image, str)
                content = os.fsencode(os.path.abspath(image)) if isinstance(image, str) else image
                self.lengths.append(written.write(os.fsencode(called(index)) + b"\0" + content))

    def images(self) -> Stream:
        with self.writing() as file, file.open("r+b") as written:
            self.header(written)
        records = np.load(file, mmap_mode="r")
        starts = np.cumsum(self.lengths)
        return Stream(records, starts, image_shape=self.shape, files=self.files, resize=self.resize)
