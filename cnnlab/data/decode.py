"""The parts of a data set of encoded images: decoded to where they have room, or ready to be streamed."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from cnnlab.data.encoded import Advance, Called, Encoded, decode, decoded, for_each
from cnnlab.data.room import Room
from cnnlab.data.stream import Images, Spool

Shard = tuple[Sequence[Encoded], Called]


class Decoder:
    """Decodes the parts of one data set to one shape, that of the first image.

    The first image has colours or not, and all others must fit: of a gray set one that has is Coloured, after
    which all is to be decoded again into three `channels`. With `size` each is resized to a square of that
    side, else all must be of one size. Errors begin with the image's name.
    """

    def __init__(self, room: Room, size: int | None, channels: int | None = None) -> None:
        self.room, self.resize, self.channels = room, size is not None, channels
        self.hw: tuple[int, int] | None = None if size is None else (size, size)

    def part(self, name: str, count: int, shards: Iterable[Shard]) -> Images:
        """The images of a part, uint8 (count, 1 or 3, H, W)."""
        target: Pixels | Spool | None = None
        with progress(name, count) as advance:
            for images, called in shards:
                target = target or self.target(name, (count, *self.shape(images[0], called(0))))
                target.take(images, called, advance)
        assert target is not None, f"{name} has no images"
        return target.images()

    def target(self, name: str, shape: tuple[int, ...]) -> "Pixels | Spool":
        if self.room.streams(shape):
            what = f"{name}_records.npy", f"the {name} images take some room, encoded or by their names,"
            return Spool(partial(self.room.writing, *what), shape[1:], resize=self.resize)
        return Pixels(self.room(name, shape), resize=self.resize)

    def shape(self, encoded: Encoded, name: str) -> tuple[int, int, int]:
        """What all images are to be: channels, height and width."""
        if self.channels is None or self.hw is None:
            image, gray = decoded(encoded, name)
            self.channels = self.channels or (1 if gray else 3)
            self.hw = self.hw or (image.height, image.width)
        return self.channels, *self.hw


class Pixels:
    """Decodes a part's images into an array, one after another."""

    def __init__(self, array: np.ndarray, *, resize: bool) -> None:
        self.array, self.resize, self.start = array, resize, 0

    def take(self, images: Sequence[Encoded], called: Called, advance: Advance) -> None:
        places = self.array[self.start :]

        def fill(index: int) -> None:
            decode(images[index], called(index), places[index], resize=self.resize)

        for_each(fill, len(images), advance)
        self.start += len(images)

    def images(self) -> torch.Tensor:
        return torch.from_numpy(self.array)


@contextlib.contextmanager
def progress(name: str, count: int) -> Iterator[Callable[[int], object]]:
    """How many images of a part are decoded, on a terminal."""
    from rich.console import Console  # 60 ms
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(f"decoding {name} images", total=count)
        yield lambda done: shown.advance(task, done)
