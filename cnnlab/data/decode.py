"""Encoded images (JPEG, PNG, ...) into one uint8 tensor."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps

GRAY = ("1", "L", "LA", "La")  # Pillow's modes of at most 8 bits a pixel; transparency is dropped
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def decode(
    encoded: Sequence[bytes | None], hw: tuple[int, int] | None, *, resize: bool, where: str
) -> tuple[torch.Tensor, bool]:
    """All images as RGB, uint8 (N, 3, H, W), and whether every one of them is grayscale.

    Each must have `hw`, height and width (without it those of the first), or is resized to it. Errors begin
    with `where`.
    """

    def opened(index: int) -> tuple[np.ndarray, bool]:
        data = encoded[index]
        if data is None:
            raise ValueError(f"{where}: image {index} holds no bytes")
        try:
            image: Image.Image = Image.open(io.BytesIO(data))
            gray = image.mode in GRAY
            if not gray and image.mode not in COLOUR:
                raise ValueError(f"expected 8 bits a channel, got mode {image.mode}")
            if image.getexif().get(274, 1) != 1:  # taken with the camera turned
                image = ImageOps.exif_transpose(image)
            image = image.convert("RGB")
        except Exception as error:  # whatever a decoder raises on corrupt data
            reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
            raise ValueError(f"{where}: image {index} can't be decoded: {reason}") from error
        if resize and hw is not None:
            image = image.resize(hw[::-1], Image.Resampling.BILINEAR)  # Pillow says (width, height)
        return np.asarray(image), gray  # (H, W, 3)

    height, width = hw or opened(0)[0].shape[:2]
    pixels = np.empty((len(encoded), 3, height, width), dtype=np.uint8)

    def fill(index: int) -> bool:
        image, gray = opened(index)
        if image.shape[:2] != (height, width):
            got = f"{height}x{width} and {image.shape[0]}x{image.shape[1]} ({where}: image {index})"
            raise ValueError(f"size must be given where images differ in size: {got}")
        pixels[index] = image.transpose(2, 0, 1)
        return gray

    if height * width < 64 * 64:  # mostly Python, which runs one thread at a time
        grays = [fill(index) for index in range(len(encoded))]
    else:  # mostly the decoder, which lets other threads run
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            grays = list(pool.map(fill, range(len(encoded))))
    return torch.from_numpy(pixels), all(grays)
