"""The idx format of the MNIST family, compressed or not, and the data sets that come in it."""

import gzip
import math
import os
import sys
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from cnnlab.allowed import truth
from cnnlab.data.download import Remote, fetch, home, located

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


class MNIST:
    """Handwritten digits, 60,000 + 10,000 images of 28x28, one channel.

    `root` is the folder of the four idx files, .gz or not; without it ~/.local/share/datasets/mnist, to which
    they (12 MB) are downloaded if `download`. Of files that are there already only form and ranges can be
    checked, and the checksum that a .gz has within.

    Source: LeCun, Bottou, Bengio & Haffner 1998, Gradient-Based Learning Applied to Document Recognition.
    Licence: not stated by its authors; often given as CC BY-SA 3.0.
    Shape: images (60000, 1, 28, 28) and (10000, 1, 28, 28), labels (60000,) and (10000,).
    Raises: FileNotFoundError where a file is missing, ValueError where one is truncated or corrupt.
    """

    name: ClassVar = "mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    md5s: ClassVar[tuple[str, ...]] = (  # of the training images and labels, of the test images and labels
        *("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"),
        *("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
    )
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def __init__(self, *, root: str | None = None, download: bool = True) -> None:
        self.root = root
        self.download = truth("download", download)

    def files(self) -> list[Path]:
        folder = located(self.root, system_copy(self.name) or home(self.name))
        names = [f"{part}-{content}" for part in ("train", "t10k") for content in CONTENTS]
        # What is there may be packed otherwise than it was published: its checksum says nothing.
        return [
            existing(folder / name)
            or fetch(Remote(f"{name}.gz", md5, self.mirrors), folder, download=self.download)
            for name, md5 in zip(names, self.md5s, strict=True)
        ]

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


class FashionMNIST(MNIST):
    """Photographs of clothes, 60,000 + 10,000 images of 28x28, one channel.

    `root` is the folder of the four idx files, .gz or not; without it the system's own copy is used (Debian:
    package dataset-fashion-mnist), or ~/.local/share/datasets/fashion-mnist, to which they (31 MB) are
    downloaded if `download`.

    Source: Xiao, Rasul & Vollgraf 2017, Fashion-MNIST.
    Licence: MIT.
    Shape: images (60000, 1, 28, 28) and (10000, 1, 28, 28), labels (60000,) and (10000,).
    Raises: FileNotFoundError where a file is missing, ValueError where one is truncated or corrupt.
    """

    name: ClassVar = "fashion-mnist"
    mirrors: ClassVar[tuple[str, ...]] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    md5s: ClassVar[tuple[str, ...]] = (
        *("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"),
        *("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
    )
    class_names: ClassVar[tuple[str, ...]] = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )


def existing(file: Path) -> Path | None:
    """The file or its compressed form, where one is there."""
    return next((path for path in (file, file.with_name(f"{file.name}.gz")) if path.is_file()), None)


def system_copy(name: str) -> Path | None:
    """The folder share/datasets/<name> under the usual prefixes, where one is there."""
    shares = [os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()]
    shares += (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep)
    folders = (Path(share, "datasets", name) for share in (*shares, Path(sys.prefix, "share")))
    return next((folder for folder in folders if folder.is_dir()), None)
