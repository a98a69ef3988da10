"""CIFAR-10 and CIFAR-100 as their authors give them: binary or python version, unpacked or not."""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from cnnlab.allowed import one_of, truth
from cnnlab.data.download import Remote, check, fetch, home, located
from cnnlab.data.unpickle import arrays

PIXELS = 3 * 32 * 32  # bytes of an image: red, green, blue, each row by row
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

Examples = tuple[torch.Tensor, torch.Tensor]
Labels = dict[str, np.ndarray]  # kind of label -> those of each image


class Binary(NamedTuple):
    """Records of one byte for each kind of label and the pixels; class names in text files."""

    archive: Remote
    folder: str  # in the archive
    train: tuple[str, ...]
    test: str
    names: Mapping[str, str]  # kind of label -> file, in the order of the bytes

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, *self.names.values())

    def examples(self, data: bytes) -> tuple[np.ndarray, Labels]:
        kinds = len(self.names)
        if not data or len(data) % (kinds + PIXELS):
            raise ValueError(f"expected records of {kinds + PIXELS:,} bytes, got {len(data):,} bytes")
        records = np.frombuffer(data, np.uint8).reshape(-1, kinds + PIXELS)
        return records[:, kinds:], dict(zip(self.names, records[:, :kinds].T, strict=True))

    def class_names(self, contents: Mapping[str, bytes], kind: str) -> list[str]:
        return contents[self.names[kind]].decode(errors="replace").split()


class Python(NamedTuple):
    """Pickled dictionaries of arrays and lists; class names in one of them, `meta`."""

    archive: Remote
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    keys: Mapping[str, tuple[bytes, bytes]]  # kind of label -> where its labels are, and its names

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)

    def examples(self, data: bytes) -> tuple[np.ndarray, Labels]:
        content = arrays(data)
        try:
            pixels = np.asarray(content[b"data"])
            labels = {kind: np.asarray(content[key], np.int64) for kind, (key, _) in self.keys.items()}
        except (KeyError, TypeError, ValueError) as error:
            expected = ", ".join(["data", *(key.decode() for key, _ in self.keys.values())])
            raise ValueError(f"expected a dictionary of {expected}: {error}") from None
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
            raise ValueError(f"expected uint8 data (N, {PIXELS}), got {pixels.dtype} {pixels.shape}")
        return pixels, labels

    def class_names(self, contents: Mapping[str, bytes], kind: str) -> list[str]:
        return [name.decode() for name in arrays(contents[self.meta])[self.keys[kind][1]]]


class CIFAR10:
    """Photographs of animals and vehicles, 50,000 + 10,000 images of 32x32, three channels, 10 classes.

    `root` is the folder of an archive (binary or python version) or of what it unpacks to; without it
    ~/.local/share/datasets/cifar10, to which the binary version (162 MB) is downloaded if `download`. An
    archive must have its authors' checksum; of unpacked files no more than form and ranges can be checked.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    Licence: not stated by its authors.
    Shape: images (50000, 3, 32, 32) and (10000, 3, 32, 32), labels (50000,) and (10000,).
    Raises: FileNotFoundError where files are missing, ValueError where one is damaged.
    """

    name: ClassVar = "cifar10"
    versions: ClassVar[tuple[Binary | Python, ...]] = (
        Binary(
            Remote("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", MIRRORS),
            "cifar-10-batches-bin",
            tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test_batch.bin",
            {"class": "batches.meta.txt"},
        ),
        Python(
            Remote("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", MIRRORS),
            "cifar-10-batches-py",
            tuple(f"data_batch_{i}" for i in range(1, 6)),
            "test_batch",
            "batches.meta",
            {"class": (b"labels", b"label_names")},
        ),
    )
    counts: ClassVar[dict[str, int]] = {"class": 10}  # of each kind of label
    labels = "class"

    def __init__(self, *, root: str | None = None, download: bool = True) -> None:
        self.root = root
        self.download = truth("download", download)
        self.class_names: list[str] = []
        self.superclasses: list[int] | None = None  # the coarse label of each fine one

    def files(self) -> list[Path]:
        """What is read: the files of an unpacked version, or an archive, which may be downloaded first."""
        root = located(self.root, home(self.name))
        for version in self.versions:
            for folder in (root / version.folder, root):
                found = [folder / name for name in version.files]
                if all(file.is_file() for file in found):
                    return found
        archives = [version.archive for version in self.versions]
        present = [archive for archive in archives if (root / archive.name).is_file()]
        return [fetch((present or archives)[0], root, download=self.download)]

    def load(self) -> tuple[Examples, Examples]:
        files = self.files()
        (version,) = (v for v in self.versions if files[0].name in (v.archive.name, *v.train))
        if len(files) == 1:
            check(files[0], version.archive.md5)
            contents = dict(members(files[0], version.files))
        else:
            contents = {file.name: file.read_bytes() for file in files}
        where = f"root={files[0].parent}"
        count = self.counts[self.labels]
        try:
            self.class_names = version.class_names(contents, self.labels)
            if len(self.class_names) != count:
                raise ValueError(f"got {len(self.class_names)}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            file = version.names[self.labels] if isinstance(version, Binary) else version.meta
            raise ValueError(f"{where}: {file}: expected the names of {count} classes: {error}") from error
        names = (*version.train, version.test)
        parts = [self.part(version, contents[name], f"{where}: {name}") for name in names]
        if self.labels == "fine":
            fine, coarse = (np.concatenate([labels[kind] for _, labels in parts]) for kind in self.counts)
            self.superclasses = superclasses(fine, coarse, self.class_names, where)
        *train, test = [(images, torch.from_numpy(labels[self.labels])) for images, labels in parts]
        images, classes = (torch.cat(tensors) for tensors in zip(*train, strict=True))
        return (images, classes), test

    def part(self, version: Binary | Python, data: bytes, where: str) -> tuple[torch.Tensor, Labels]:
        """The images of a file, and its labels of each kind."""
        try:
            pixels, found = version.examples(data)
            labels = {kind: numbers.astype(np.int64) for kind, numbers in found.items()}
            for kind, numbers in labels.items():
                if len(numbers) != len(pixels):
                    raise ValueError(f"expected {len(pixels):,} {kind} labels, got {len(numbers):,}")
                if len(numbers) and not 0 <= numbers.min() <= numbers.max() < self.counts[kind]:
                    got = f"{numbers.min()}..{numbers.max()}"
                    raise ValueError(f"{kind} labels must be 0..{self.counts[kind] - 1}, got {got}")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy()), labels


class CIFAR100(CIFAR10):
    """Photographs of things, 50,000 + 10,000 images of 32x32, three channels, 100 classes in 20 superclasses.

    `labels` are fine (100) or coarse (20); both make the tree of loss=hierarchical_softmax loss.tree=coarse.
    `root` and `download` are as those of cifar10 (161 MB).

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    Licence: not stated by its authors.
    Shape: images (50000, 3, 32, 32) and (10000, 3, 32, 32), labels (50000,) and (10000,).
    Raises: FileNotFoundError where files are missing, ValueError where one is damaged.
    """

    name: ClassVar = "cifar100"
    versions: ClassVar[tuple[Binary | Python, ...]] = (
        Binary(
            Remote("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", MIRRORS),
            "cifar-100-binary",
            ("train.bin",),
            "test.bin",
            {"coarse": "coarse_label_names.txt", "fine": "fine_label_names.txt"},
        ),
        Python(
            Remote("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", MIRRORS),
            "cifar-100-python",
            ("train",),
            "test",
            "meta",
            {
                "coarse": (b"coarse_labels", b"coarse_label_names"),
                "fine": (b"fine_labels", b"fine_label_names"),
            },
        ),
    )
    counts: ClassVar[dict[str, int]] = {"fine": 100, "coarse": 20}

    def __init__(self, *, root: str | None = None, download: bool = True, labels: str = "fine") -> None:
        super().__init__(root=root, download=download)
        self.labels = one_of("labels", labels, self.counts)


def superclasses(fine: np.ndarray, coarse: np.ndarray, names: list[str], where: str) -> list[int]:
    """The coarse label of each class; a class that no image has is on its own.

    >>> superclasses(np.array([2, 0, 2]), np.array([4, 1, 4]), ["cat", "rose", "dog"], "here")
    [1, -2, 4]
    """
    found: dict[int, int] = {}
    for label, superclass in np.unique(np.stack([fine, coarse], 1), axis=0).tolist():
        if found.setdefault(label, superclass) != superclass:
            got = f"{names[label]} has {found[label]} and {superclass}"
            raise ValueError(f"{where}: expected one coarse label a class, {got}")
    return [found.get(label, -1 - label) for label in range(len(names))]


def members(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Files of an archive, read in one pass without unpacking it."""
    missing = set(names)
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in missing and (file := tar.extractfile(member)) is not None:
                    missing.remove(name)
                    yield name, file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"root={archive.parent}: {archive.name} is not a whole archive: {error}") from error
    if missing:
        raise ValueError(f"root={archive.parent}: {archive.name} has no {', '.join(sorted(missing))}")
