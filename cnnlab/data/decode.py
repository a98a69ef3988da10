"""Encoded images (JPEG, PNG, ...) into uint8 arrays, in memory or wherever they have room."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps

from cnnlab.data.room import Room

GRAY = ("1", "L", "LA", "La")  # Pillow's modes of at most 8 bits a pixel; transparency is dropped
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
CHUNK = 256  # images that a thread takes at a time

Encoded = bytes | str  # an image's bytes, or its file
Shard = tuple[Sequence[Encoded], Callable[[int], str]]  # images, and what errors call each of them


class Coloured(Exception):
    """An image has colours, and the array it was to go into has one channel."""


class Decoder:
    """Decodes the parts of one data set into arrays of one shape, that of the first image.

    The first image has colours or not, and all others must fit: of a gray set one that has is Coloured, after
    which all is to be decoded again into three `channels`. With `size` each is resized to a square of that
    side, else all must be of one size. Errors begin with the image's name.
    """

    def __init__(self, room: Room, size: int | None, channels: int | None = None) -> None:
        self.room, self.resize, self.channels = room, size is not None, channels
        self.hw: tuple[int, int] | None = None if size is None else (size, size)

    def part(self, name: str, count: int, shards: Iterable[Shard]) -> torch.Tensor:
        """The images of a part, uint8 (count, 1 or 3, H, W)."""
        pixels, start = np.empty(0, np.uint8), 0
        with progress(name, count) as advance:
            for encoded, called in shards:
                if not start:
                    pixels = self.room(name, (count, *self.shape(encoded[0], called(0))))
                self.fill(pixels[start : start + len(encoded)], encoded, called, advance)
                start += len(encoded)
        return torch.from_numpy(pixels)

    def shape(self, encoded: Encoded, name: str) -> tuple[int, int, int]:
        """What all images are to be: channels, height and width."""
        if self.channels is None or self.hw is None:
            image, gray = opened(encoded, name)
            self.channels = self.channels or (1 if gray else 3)
            self.hw = self.hw or (image.height, image.width)
        return self.channels, *self.hw

    def fill(
        self,
        pixels: np.ndarray,
        encoded: Sequence[Encoded],
        called: Callable[[int], str],
        advance: Callable[[int], object],
    ) -> None:
        channels, height, width = pixels.shape[1:]

        def fill_chunk(start: int) -> int:
            stop = min(start + CHUNK, len(encoded))
            for index in range(start, stop):
                image, gray = opened(encoded[index], called(index))
                if channels == 1 and not gray:
                    raise Coloured
                if self.resize:
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                if image.size != (width, height):
                    got = f"{height}x{width} and {image.height}x{image.width} ({called(index)})"
                    raise ValueError(f"size must be given where images differ in size: {got}")
                pixels[index] = np.asarray(image)[..., :channels].transpose(2, 0, 1)  # from (H, W, 3)
            return stop - start

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            chunks = [pool.submit(fill_chunk, start) for start in range(0, len(encoded), CHUNK)]
            try:
                for chunk in chunks:
                    advance(chunk.result())
            finally:
                pool.shutdown(cancel_futures=True)


def opened(encoded: Encoded, name: str) -> tuple[Image.Image, bool]:
    """An image as RGB, and whether it is grayscale."""
    if isinstance(encoded, str):
        with open(encoded, "rb") as file:
            encoded = file.read()
    if not encoded:
        raise ValueError(f"{name} holds no bytes")
    try:
        image: Image.Image = Image.open(io.BytesIO(encoded))
        gray = image.mode in GRAY
        if not gray and image.mode not in COLOUR:
            raise ValueError(f"expected 8 bits a channel, got mode {image.mode}")
        if image.getexif().get(274, 1) != 1:  # taken with the camera turned
            image = ImageOps.exif_transpose(image)
        return image.convert("RGB"), gray
    except Exception as error:  # whatever a decoder raises on corrupt data
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{name} can't be decoded: {reason}") from error


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
