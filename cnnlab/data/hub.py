"""Image data in the layout of Hugging Face's hub: parquet files of images and labels."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cnnlab.allowed import one_of, whole
from cnnlab.data.columns import kind_of, read_column
from cnnlab.data.decode import Coloured, Decoder, Shard
from cnnlab.data.room import IN_MEMORY, Room, check_in_memory

# `train-00000-of-00002.parquet`, `data/test.parquet`, `validation/0000.parquet`
SPLIT = re.compile(r"(?:data/)?(train|test|validation)(?![a-z])(?:.*-of-(\d+))?")

Examples = tuple[torch.Tensor, torch.Tensor]


class Hub:
    """Any images with labels in Hugging Face's layout, from parquet files.

    The files train-*, test-* and validation-* lie in the folder `path`, in its subfolder data, or in
    subfolders named train, test and validation. Where there is no test file the validation files are the test
    set; else they are not used, for validation is always drawn from train. Images stay one channel if all are
    grayscale, else all become RGB; `size` resizes each to a square of that side (bilinear, aspect not kept).

    The label column's type says what its targets are: whole numbers are classes, lists of 0 and 1 attributes,
    real numbers and lists of them values, lists of class labels chains. `coarse_column` names the column of
    the classes' coarse labels, for loss=hierarchical_softmax.

    `in_memory` tells whether images are decoded there, or else, for sets larger than memory, into a file that
    is mapped; auto: there, if they take at most half of what is free. Images and their order are the same.

    Licence: that of your images.
    Shape: images uint8 (N, 1 or 3, H, W), labels (N,) or lists (N, length).
    Raises: FileNotFoundError where files are missing; ValueError where one is corrupt, where it is not clear
        which columns are meant, or where images differ in size and `size` is not given; OSError where a
        mapped file has no room.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        coarse_column: str | None = None,
        size: int | None = None,
        in_memory: bool | str = "auto",
    ) -> None:
        if path is None:
            raise ValueError("path must be a folder of parquet files, got None")
        self.path = Path(path).expanduser()
        self.image_column, self.label_column = image_column, label_column
        self.coarse_column = coarse_column
        self.size = size if size is None else whole("size", size, at_least=1)
        self.in_memory = check_in_memory(in_memory)
        self.targets = "class"
        self.class_names: list[str] = []
        self.coarse: dict[int, int] = {}  # class -> its coarse label

    def files(self) -> list[Path]:
        train, held_back = split_files(self.path)
        return [*train, *held_back]

    def load(self, room: Room = IN_MEMORY) -> tuple[Examples, Examples | None]:
        try:
            return self.decoded(Decoder(room, self.size))
        except Coloured:
            pass  # outside, so that nothing holds what is decoded till here
        return self.decoded(Decoder(room, self.size, channels=3))

    def decoded(self, decoder: Decoder) -> tuple[Examples, Examples | None]:
        self.class_names, self.coarse = [], {}
        files, held_back = split_files(self.path)
        train = self.part("train", files, decoder)
        return train, self.part("test", held_back, decoder) if held_back else None

    def part(self, name: str, files: list[Path], decoder: Decoder) -> Examples:
        """The images and labels of some files, of which one at a time is read."""
        labels = []

        def shards() -> Iterator[Shard]:
            for file in files:
                encoded, targets = self.read(file, self.where(file))
                labels.append(targets)
                yield encoded, partial("{}: image {}".format, self.where(file))

        count = sum(self.parquet("read_metadata", file).num_rows for file in files)
        return decoder.part(name, count, shards()), torch.cat(labels)

    def where(self, file: Path) -> str:
        return f"path={self.path}: {file.relative_to(self.path)}"

    def parquet(self, function: str, file: Path) -> Any:
        """What a function of pyarrow.parquet reads of a file."""
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ValueError(f"path={self.path} needs an extra: pip install 'cnnlab[hub]'") from error
        try:
            return getattr(parquet, function)(file)
        except (OSError, ValueError) as error:  # all that pyarrow raises on corrupt data
            said = str(error).splitlines()[0]
            raise ValueError(f"{self.where(file)}: expected a whole parquet file: {said}") from error

    def read(self, file: Path, where: str) -> tuple[list[bytes], torch.Tensor]:
        """The encoded images and the labels in one file."""
        try:
            from datasets import ClassLabel, Features, Image
        except ImportError as error:
            raise ValueError(f"path={self.path} needs an extra: pip install 'cnnlab[hub]'") from error
        # Not by load_dataset, which would first write a copy of the data into a cache on disk.
        table = self.parquet("read_table", file)
        features = Features.from_arrow_schema(table.schema)
        images = [key for key, kind in features.items() if isinstance(kind, Image) or is_encoded(kind)]
        classes = [key for key, kind in features.items() if isinstance(kind, ClassLabel)]
        kinds = {key: kind for key, feature in features.items() if (kind := kind_of(feature))}
        image = chosen("image_column", self.image_column, images, images, where)
        likely = [key for key in classes or kinds if key != self.coarse_column]
        label = chosen("label_column", self.label_column, list(kinds), likely, where)
        if not len(table):
            raise ValueError(f"{where}: expected images, got none")
        labels = read_column(table[label], where)
        if kinds[label] in ("attributes", "values"):
            labels = labels.view(len(table), -1)  # one number an image too
        self.name(labels, label, kinds[label], features[label], where)
        if self.coarse_column is not None:
            whole_numbers = [key for key, kind in kinds.items() if kind == "class" and key != label]
            coarse = chosen("coarse_column", self.coarse_column, whole_numbers, [], where)
            self.group(labels, read_column(table[coarse], where))
        return [(record or {}).get("bytes") or b"" for record in table[image].to_pylist()], labels

    def name(self, labels: torch.Tensor, column: str, kind: str, feature: Any, where: str) -> None:
        """Name the classes, attributes or values by the first file, and hold the others against it."""
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if not self.class_names:
            self.targets = kind
            if kind == "class":  # numbers alone: as many classes as the first file has, if that can be
                names = names or [str(n) for n in range(1 + min(int(labels.max()), len(labels)))]
            self.class_names = names or [f"{column}.{n}" for n in range(labels[0].numel())]
        elif kind != self.targets:
            raise ValueError(f"{where}: expected {self.targets} as in the first file, got {kind}")
        elif names and names != self.class_names:
            raise ValueError(f"{where}: expected the classes of the first file, got {', '.join(names)}")
        if kind == "class" and (labels.min() < 0 or labels.max() >= len(self.class_names)):
            got = f"{labels.min()}..{labels.max()}"
            raise ValueError(f"{where}: labels must be 0..{len(self.class_names) - 1}, got {got}")

    def group(self, labels: torch.Tensor, coarse: torch.Tensor) -> None:
        """Learn the coarse label of each class."""
        if self.targets != "class":
            raise ValueError(f"coarse_column must be null for {self.targets}, got {self.coarse_column!r}")
        for label, superclass in torch.stack([labels, coarse], 1).unique(dim=0).tolist():
            if self.coarse.setdefault(label, superclass) != superclass:
                both = " and ".join(map(str, sorted((self.coarse[label], superclass))))
                name = self.class_names[label]
                raise ValueError(f"coarse_column must have one label a class, {name} has {both}")

    @property
    def superclasses(self) -> list[int] | None:
        """The coarse label of each class; a class that no image has is on its own."""
        if self.coarse_column is None:
            return None
        return [self.coarse.get(label, -1 - label) for label in range(len(self.class_names))]


def is_encoded(kind: Any) -> bool:
    """Whether a column without a type of its own has the form of images: {bytes, path}."""
    return isinstance(kind, dict) and set(kind) == {"bytes", "path"}


def chosen(name: str, asked: str | None, allowed: list[str], likely: list[str], where: str) -> str:
    """The column asked for, or the only likely one."""
    if asked is not None:
        return one_of(name, asked, allowed)
    if len(likely) != 1:
        raise ValueError(f"{name} must be one of {', '.join(likely) or '(none fits)'} in {where}")
    return likely[0]


def split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The parquet files of train, and those that serve as test set, if any; none lacks a shard."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"path={folder}: no such folder; a data set of the hub is to be downloaded first: "
            "hf download --repo-type dataset OWNER/NAME --local-dir DIR"
        )
    files: dict[str, list[Path]] = {}
    shards: dict[str, str | None] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]):
        if match := SPLIT.match(file.relative_to(folder).as_posix()):
            split, shards[match[1]] = match.groups()
            files.setdefault(split, []).append(file)
    if "train" not in files:
        raise FileNotFoundError(f"path={folder}: expected train-*.parquet, found none")
    for split, found in files.items():
        if len(found) != int(shards[split] or len(found)):
            raise FileNotFoundError(
                f"path={folder}: expected {shards[split]} {split} files, got {len(found)}"
            )
    return files["train"], files.get("test") or files.get("validation") or []
