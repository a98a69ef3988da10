"""Image data in the layout of Hugging Face's hub: parquet files of images and labels, there or here."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from cnnlab.allowed import one_of, truth, whole
from cnnlab.data.columns import kind_of, read_column
from cnnlab.data.decode import Decoder, Shard
from cnnlab.data.encoded import Coloured
from cnnlab.data.repository import commit_of, fetched, is_repository, listed
from cnnlab.data.room import IN_MEMORY, Room, check_in_memory
from cnnlab.data.stream import Images

# `train-00000-of-00002.parquet`, `data/test.parquet`, `CONFIG/validation/0000.parquet`
SPLIT = re.compile(r"(?:data/)?(?:([^/.][^/]*)/)??(train|test|validation)(?![a-z])(?:.*-of-(\d+))?")

Examples = tuple[Images, torch.Tensor]


class Hub:
    """Any images with labels in Hugging Face's layout, from parquet files.

    `path` is a folder, or OWNER/NAME of a data set of huggingface.co, of which the files that are needed are
    downloaded into the hub's own cache if `download`. `revision` is its branch, tag or commit. A run keeps
    the commit, which for a branch (null: the default one) is the one that it was when this machine first
    asked; `hf download --repo-type dataset OWNER/NAME` renews it. Of data in other formats the hub may have
    made parquet files, in the branch refs/convert/parquet.

    The files train-*, test-* and validation-* lie in the folder itself, in its subfolder data, in subfolders
    named train, test and validation, or all of that in a subfolder, of which `config` picks one of several.
    Where there is no test file the validation files are the test set; else they are not used, for validation
    is always drawn from train. Images stay one channel if all are grayscale, else all become RGB; `size`
    resizes each to a square of that side (bilinear, aspect not kept).

    The label column's type says what its targets are: whole numbers are classes, lists of 0 and 1 attributes,
    real numbers and lists of them values, lists of class labels chains. `coarse_column` names the column of
    the classes' coarse labels, for loss=hierarchical_softmax.

    `in_memory` tells where images are decoded to: true, into memory; false, into a file that is mapped;
    stream, nowhere: worker processes, one a thread of the run, decode each batch anew. auto is the first of
    these for which half of what is free there suffices. Images and their order are the same. Those that are
    streamed are looked at by their headers before the training; what else is wrong with one fails the run.

    Licence: that of your images.
    Shape: images uint8 (N, 1 or 3, H, W), labels (N,) or lists (N, length).
    Raises: FileNotFoundError where files are missing; ValueError where one is corrupt, where it is not clear
        which columns are meant, or where images differ in size and `size` is not given; OSError where a
        file of the cache has no room.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        revision: str | None = None,
        config: str | None = None,
        download: bool = True,
        image_column: str | None = None,
        label_column: str | None = None,
        coarse_column: str | None = None,
        size: int | None = None,
        in_memory: bool | str = "auto",
    ) -> None:
        if path is None:
            raise ValueError(
                "path must be a folder of parquet files or OWNER/NAME of huggingface.co, got None"
            )
        self.path = self.folder = Path(path).expanduser()
        self.is_repository = is_repository(path)
        if revision is not None and not self.is_repository:
            raise ValueError(f"revision must be null for a path that is no OWNER/NAME, got {revision!r}")
        self.revision, self.config = revision, config
        self.download = truth("download", download)
        self.image_column, self.label_column = image_column, label_column
        self.coarse_column = coarse_column
        self.size = size if size is None else whole("size", size, at_least=1)
        self.in_memory = check_in_memory(in_memory)
        self.targets = "class"
        self.class_names: list[str] = []
        self.coarse: dict[int, int] = {}  # class -> its coarse label

    def files(self) -> list[Path]:
        train, held_back = self.split()
        return [*train, *held_back]

    def split(self) -> tuple[list[Path], list[Path]]:
        """The files of train, and those that serve as test set, if any."""
        if self.is_repository:
            name = self.path.as_posix()
            commit = commit_of(name, self.revision, download=self.download)
            hint = "; dataset.revision=refs/convert/parquet may have them"
            parts = split_names(listed(name, commit, download=self.download), self.config, name, hint)
            self.folder = fetched(name, commit, [*parts[0], *parts[1]], download=self.download)
        else:
            parts = split_names(names_below(self.path), self.config, self.path)
        train, held_back = ([self.folder / name for name in names] for names in parts)
        return train, held_back

    def load(self, room: Room = IN_MEMORY) -> tuple[Examples, Examples | None]:
        try:
            return self.decoded(Decoder(room, self.size))
        except Coloured:
            pass  # outside, so that nothing holds what is decoded till here
        return self.decoded(Decoder(room, self.size, channels=3))

    def decoded(self, decoder: Decoder) -> tuple[Examples, Examples | None]:
        self.class_names, self.coarse = [], {}
        files, held_back = self.split()
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
        return f"path={self.path}: {file.relative_to(self.folder)}"

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


def names_below(folder: Path) -> list[str]:
    """The parquet files in a folder, by their path from there."""
    if not folder.is_dir():
        raise FileNotFoundError(f"path={folder}: no such folder, and no OWNER/NAME of huggingface.co")
    files = chain.from_iterable(folder.glob("*/" * depth + "*.parquet") for depth in range(4))
    return [file.relative_to(folder).as_posix() for file in files]


def split_names(
    names: Iterable[str], config: str | None, path: str | Path, hint: str = ""
) -> tuple[list[str], list[str]]:
    """The parquet files of train, and those that serve as test set, if any; none lacks a shard.

    >>> split_names(["README.md", "small/train-0.parquet", "small/test-0.parquet"], None, "OWNER/NAME")
    (['small/train-0.parquet'], ['small/test-0.parquet'])
    """
    files: dict[tuple[str | None, str], list[str]] = {}
    shards: dict[tuple[str | None, str], str | None] = {}
    for name in sorted(names, key=lambda name: name.split("/")):
        if name.endswith(".parquet") and (match := SPLIT.match(name)):
            of, split, count = match.groups()
            files.setdefault((of, split), []).append(name)
            shards[of, split] = count
    configs = [of for of, split in files if split == "train"]
    if not configs:
        raise FileNotFoundError(f"path={path}: expected train-*.parquet, found none{hint}")
    if config is None and len(configs) == 1:
        config = configs[0]
    one_of("config", config or "null", [of or "null" for of in configs])
    for (of, split), found in files.items():
        if of == config and len(found) != int(shards[of, split] or len(found)):
            raise FileNotFoundError(
                f"path={path}: expected {shards[of, split]} {split} files, got {len(found)}"
            )
    return files[config, "train"], files.get((config, "test")) or files.get((config, "validation")) or []
