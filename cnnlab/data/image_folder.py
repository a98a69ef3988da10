"""Images in folders, one for each class."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from cnnlab.allowed import whole
from cnnlab.data.decode import Decoder
from cnnlab.data.encoded import Coloured
from cnnlab.data.room import IN_MEMORY, Room, check_in_memory
from cnnlab.data.stream import Images

PARTS = ("train", "test")
Examples = tuple[Images, torch.Tensor]


class ImageFolder:
    """Your own images: a folder for each class, in root/train and root/test or in root itself.

    Any format that Pillow reads; subfolders of a class belong to it, hidden files to nothing. Without a
    folder test a stratified fifth is held out. Images stay one channel if all are grayscale, else all become
    RGB; `size` resizes each to a square of that side (bilinear, aspect not kept).

    `in_memory` tells where images are decoded to: true, into memory; false, into a file that is mapped;
    stream, nowhere: worker processes, one a thread of the run, decode each batch anew. auto is the first of
    these for which half of what is free there suffices. Images and their order are the same. Those that are
    streamed are looked at by their headers before the training; what else is wrong with one fails the run.

    Licence: that of your images.
    Shape: images uint8 (N, 1 or 3, H, W), labels int64 (N,), classes in the order of their names.
    Raises: FileNotFoundError where folders or images are missing; ValueError where a file is no image, and
        where images differ in size and `size` is not given; OSError where a file of the cache has no room.
    """

    def __init__(
        self, *, root: str | None = None, size: int | None = None, in_memory: bool | str = "auto"
    ) -> None:
        if root is None:
            raise ValueError("root must be a folder of images, got None")
        self.root = Path(root).expanduser()
        self.size = size if size is None else whole("size", size, at_least=1)
        self.in_memory = check_in_memory(in_memory)
        self.class_names: list[str] = []

    def parts(self) -> list[dict[str, list[str]]]:
        """Class -> its files, of the training part and, where there is one, of the test set."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"root={self.root}: no such folder")
        split = [self.root / part for part in PARTS if (self.root / part).is_dir()]
        if split and split[0].name != "train":
            raise FileNotFoundError(f"root={self.root}: expected folders train and test, found no train")
        parts = [images_of(folder) for folder in split or [self.root]]
        for folder, classes in zip(split[1:], parts[1:], strict=True):
            if unknown := sorted(classes.keys() - parts[0].keys()):
                raise ValueError(
                    f"root={self.root}: {folder.name} has classes that train has not: {unknown[0]}"
                )
        return parts

    def files(self) -> list[str]:
        return [file for classes in self.parts() for files in classes.values() for file in files]

    def load(self, room: Room = IN_MEMORY) -> tuple[Examples, Examples | None]:
        parts = self.parts()
        self.class_names = [*parts[0]]
        try:
            return self.decoded(parts, Decoder(room, self.size))
        except Coloured:
            pass  # outside, so that nothing holds what is decoded till here
        return self.decoded(parts, Decoder(room, self.size, channels=3))

    def decoded(
        self, parts: list[dict[str, list[str]]], decoder: Decoder
    ) -> tuple[Examples, Examples | None]:
        found = []
        for name, classes in zip(PARTS, parts, strict=False):
            files = [*chain.from_iterable(classes.values())]
            images = decoder.part(name, len(files), [(files, partial(self.called, files))])
            counts = torch.tensor([len(classes.get(name, ())) for name in self.class_names])
            found.append((images, torch.arange(len(counts)).repeat_interleave(counts)))
        train, *test = found
        return train, test[0] if test else None

    def called(self, files: list[str], index: int) -> str:
        return f"root={self.root}: {os.path.relpath(files[index], self.root)}"


def images_of(folder: Path) -> dict[str, list[str]]:
    """Class -> its files."""
    found = {}
    with os.scandir(folder) as entries:
        places = sorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for place in places:
        name = os.path.basename(place)
        found[name] = sorted(files_below(place), key=lambda file: file.split(os.sep))
        if not found[name]:
            raise FileNotFoundError(f"root={folder}: the folder of class {name} has no images")
    if len(found) < 2:
        raise FileNotFoundError(
            f"root={folder}: expected a folder for each of two classes or more, found {len(found)}"
        )
    return found


def files_below(folder: str) -> Iterator[str]:
    """The files in a folder and its subfolders; links to folders are not followed."""
    with os.scandir(folder) as entries:  # which knows what each entry is, without a question to the disk
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path)
            elif entry.is_file():
                yield entry.path
