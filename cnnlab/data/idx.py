"""The idx format of the MNIST family, compressed or not, and the data sets that come in it."""

import gzip
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

CONTENTS = ("images-idx3-ubyte", "labels-idx1-ubyte")  # 3 and 1: their dimensions
UBYTE = 8  # the third byte of the magic number: element type; the fourth: number of dimensions


def read_idx(path: Path, ndim: int) -> torch.Tensor:
    """The bytes an idx file holds, as a uint8 tensor of `ndim` dimensions.

    Raises: ValueError with one line that says what was expected, where the file is not exactly that.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path.name}: expected a whole gzip file: {error}") from None
    magic = bytes([0, 0, UBYTE, ndim])
    if data[:4] != magic:
        raise ValueError(
            f"{path.name}: expected to begin with {magic.hex()}, got {data[:4].hex() or 'nothing'}"
        )
    start = 4 + 4 * ndim
    if len(data) < start:
        raise ValueError(f"{path.name}: truncated: expected a header of {start} bytes, got {len(data)}")
    shape = [int.from_bytes(data[at : at + 4]) for at in range(4, start, 4)]
    expected = start + math.prod(shape)
    if len(data) != expected:
        wrong = "truncated" if len(data) < expected else "too long"
        raise ValueError(f"{path.name}: {wrong}: expected {expected:,} bytes, got {len(data):,}")
    return torch.tensor(np.frombuffer(data, np.uint8, offset=start).reshape(shape))


class FashionMNIST:
    """Photographs of clothes, 60,000 + 10,000 images of 28x28, one channel, in idx files.

    `root` is the folder of the four files, .gz or not; without it the system's own copy is used (Debian:
    package dataset-fashion-mnist).

    Source: Xiao, Rasul & Vollgraf 2017, Fashion-MNIST.
    Shape: images (60000, 1, 28, 28) and (10000, 1, 28, 28), labels (60000,) and (10000,).
    Raises: FileNotFoundError where a file is missing, ValueError where one is truncated or corrupt.
    """

    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )

    def __init__(self, *, root: str | None = None) -> None:
        self.root = root

    def files(self) -> list[Path]:
        folder = system_copy("fashion-mnist") if self.root is None else Path(self.root).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"root={folder}: no such folder")
        names = (f"{part}-{content}" for part in ("train", "t10k") for content in CONTENTS)
        return [existing(folder / name) for name in names]

    def load(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        train_images, train_labels, test_images, test_labels = self.files()
        try:
            return self.part(train_images, train_labels), self.part(test_images, test_labels)
        except (OSError, ValueError) as error:
            raise type(error)(f"root={train_images.parent}: {error}") from error

    def part(self, images_file: Path, labels_file: Path) -> tuple[torch.Tensor, torch.Tensor]:
        images = read_idx(images_file, ndim=3).unsqueeze(1)  # (N, H, W) -> (N, 1, H, W)
        labels = read_idx(labels_file, ndim=1).long()
        if len(labels) != len(images):
            raise ValueError(f"{labels_file.name}: expected {len(images):,} labels, got {len(labels):,}")
        if len(labels) and labels.max() >= len(self.class_names):
            raise ValueError(f"{labels_file.name}: labels must be 0..9, got {labels.max()}")
        return images, labels


def existing(file: Path) -> Path:
    """The file, or its compressed form."""
    for path in (file, file.with_name(f"{file.name}.gz")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"root={file.parent}: no file {file.name} or {file.name}.gz")


def system_copy(name: str) -> Path:
    """The folder share/datasets/<name> under the usual prefixes."""
    shares = [os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()]
    shares += (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep)
    for share in (*shares, Path(sys.prefix, "share")):
        if (folder := Path(share, "datasets", name)).is_dir():
            return folder
    raise FileNotFoundError(
        f"root=null: the system has no share/datasets/{name}: apt install dataset-{name} (Debian) "
        "or set root to the folder of its idx files"
    )
