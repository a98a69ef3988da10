"""Encoded images (JPEG, PNG, ...): what their headers tell, and their pixels."""

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps

GRAY = ("1", "L", "LA", "La")  # Pillow's modes of at most 8 bits a pixel; transparency is dropped
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
CHUNK = 256  # images that a thread takes at a time
ORIENTATION = 274  # the tag of a camera that was turned

Encoded = bytes | str  # an image's bytes, or its file
Called = Callable[[int], str]  # what errors call each image
Advance = Callable[[int], object]  # is told how many more are done


class Coloured(Exception):
    """An image has colours, and the array it was to go into has one channel."""


def decoded(encoded: Encoded, name: str) -> tuple[Image.Image, bool]:
    """An image as RGB, and whether it is grayscale."""
    if isinstance(encoded, str):
        with open(encoded, "rb") as file:
            encoded = file.read()
    with opened(encoded, name) as (image, gray):
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return image.convert("RGB"), gray


def header(encoded: Encoded, name: str) -> tuple[tuple[int, int], bool]:
    """An image's width and height, and whether it is grayscale; its pixels are not looked at."""
    with opened(encoded, name) as (image, gray):
        turned = Image.Image.getexif(image).get(ORIENTATION, 1) >= 5  # PNG's own would decode it
        return image.size[::-1] if turned else image.size, gray


@contextlib.contextmanager
def opened(encoded: Encoded, name: str) -> Iterator[tuple[Image.Image, bool]]:
    """An image, and whether it is grayscale; what goes wrong with it is said with its name."""
    if not encoded:
        raise ValueError(f"{name} holds no bytes")
    try:
        with Image.open(encoded if isinstance(encoded, str) else io.BytesIO(encoded)) as image:
            if image.mode not in GRAY and image.mode not in COLOUR:
                raise ValueError(f"expected 8 bits a channel, got mode {image.mode}")
            yield image, image.mode in GRAY
    except Exception as error:  # whatever a decoder raises on corrupt data
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{name} can't be decoded: {reason}") from error


def decode(encoded: Encoded, name: str, out: np.ndarray, *, resize: bool) -> None:
    """Put an image's pixels into an array (1 or 3, H, W).

    Raises: Coloured where it has colours and the array one channel; ValueError where it is no image, or,
        without `resize`, of another size.
    """
    channels, height, width = out.shape
    image, gray = decoded(encoded, name)
    if channels == 1 and not gray:
        raise Coloured(f"{name} has colours, and the first image has none")
    if resize:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if image.size != (width, height):
        got = f"{height}x{width} and {image.height}x{image.width} ({name})"
        raise ValueError(f"size must be given where images differ in size: {got}")
    out[:] = np.asarray(image)[..., :channels].transpose(2, 0, 1)  # from (H, W, 3)


def look(encoded: Encoded, name: str, shape: tuple[int, ...], *, resize: bool) -> None:
    """Raise what `decode` would, as far as the image's header tells."""
    channels, height, width = shape
    size, gray = header(encoded, name)
    if (channels == 1 and not gray) or (size != (width, height) and not resize):
        decode(encoded, name, np.empty(shape, np.uint8), resize=resize)  # which knows better


def for_each(work: Callable[[int], None], count: int, advance: Advance = lambda done: None) -> None:
    """Work on the numbers below count, in threads; the first mistake is raised."""

    def chunk(start: int) -> int:
        numbers = range(start, min(start + CHUNK, count))
        for number in numbers:
            work(number)
        return len(numbers)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        chunks = [pool.submit(chunk, start) for start in range(0, count, CHUNK)]
        try:
            for done in chunks:
                advance(done.result())
        finally:
            pool.shutdown(cancel_futures=True)
