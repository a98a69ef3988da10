"""The LightningDataModule: a source is loaded once, split, and handed out in batches."""

from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch

from cnnlab.allowed import whole
from cnnlab.data import cache
from cnnlab.data.batches import Batches
from cnnlab.data.folds import check_folds, in_fold
from cnnlab.data.promise import tensor
from cnnlab.data.room import picked
from cnnlab.data.stream import Stream
from cnnlab.data.targets import checked_targets

Images = Any  # a tensor, or a Stream, which has of a tensor what is asked of images
Examples = tuple[Images, torch.Tensor]  # images uint8 (N, C, H, W), targets (N, ...)

TEST_SEED = 1797  # where a source has no test set: which examples give one is fixed, whatever the user seeds


def held_out(labels: torch.Tensor, *, one_in: int, seed: int) -> torch.Tensor:
    """Mask of a stratified 1/one_in of the examples, drawn by seed; each class gives its share.

    The total is N/one_in rounded half up and each class gives its share of it rounded down, or up where the
    remainder is largest (of equal ones that of the larger class). Targets that are not classes count as one.

    >>> labels = torch.tensor([0] * 25 + [1] * 14 + [2])
    >>> mask = held_out(labels, one_in=10, seed=0)
    >>> [int(mask[labels == label].sum()) for label in range(3)]
    [3, 1, 0]
    """
    labels = labels if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.int64)
    counts = labels.bincount().numpy()
    share, remainder = np.divmod(counts, one_in)
    missing = (len(labels) + one_in // 2) // one_in - share.sum()
    share[np.lexsort((-counts, -remainder))[:missing]] += 1
    # Raw output of a bit generator: NumPy promises it will never change, on any platform.
    lot = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((lot, labels.numpy()))  # class by class, drawn by lot within
    rank = np.arange(len(labels)) - (counts.cumsum() - counts).repeat(counts)
    mask = np.zeros(len(labels), dtype=bool)
    mask[order[rank < share.repeat(counts)]] = True
    return torch.from_numpy(mask)


def checked(part: str, examples: tuple[Any, Any], kind: str, names: int) -> Examples:
    """What a source gave for a part, as tensors of the promised type; else one line says what is wrong."""
    images, targets = examples[0], tensor(f"{part} labels", examples[1])
    if isinstance(images, Stream):
        images.warn(part)
    else:
        images = tensor(f"{part} images", images)
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"{part} images must be uint8 (N, C, H, W), got {images.dtype} {tuple(images.shape)}"
        )
    if not len(images):
        raise ValueError(f"{part} images must be at least one, got none")
    if images.shape[3] in (1, 3) and images.shape[1] > 4:
        raise ValueError(f"{part} images must be (N, C, H, W), got (N, H, W, C): {tuple(images.shape)}")
    return images, checked_targets(part, targets, kind=kind, images=len(images), names=names)


class Part(NamedTuple):
    """Some of a source's examples, told by their numbers: what is mapped from disk stays shared."""

    images: Images  # all of them
    labels: torch.Tensor
    chosen: torch.Tensor

    def examples(self) -> Examples:
        """Those examples alone; of images in memory a copy."""
        images = self.images
        alone = images.only(self.chosen) if isinstance(images, Stream) else picked(images, self.chosen)
        return alone, self.labels[self.chosen]


class ImageData(pl.LightningDataModule):
    """A source's images split into train, validation and test, on the training device if they fit.

    Validation is a tenth of train, drawn by `split_seed`; a source without a test set first gives up a fifth,
    always the same; both are stratified where the targets are classes. With `folds` validation is instead the
    one numbered `fold`, 0..folds-1. `seed` orders the training batches and nothing else.

    >>> from cnnlab.data.digits import Digits
    >>> data = ImageData(Digits(), batch_size=64, seed=0)
    >>> data.setup()
    >>> data.input_shape, data.classes, data.sizes
    ((1, 8, 8), 10, {'train': 1294, 'val': 144, 'test': 359})
    """

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int,
        seed: int,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = whole("batch_size", batch_size, at_least=1)
        self.seed = whole("seed", seed, at_least=0)
        self.split_seed = whole("split_seed", split_seed, at_least=0)
        check_folds(folds, fold)
        self.folds, self.fold = folds, fold
        self.loaded = False

    def setup(self, stage: str | None = None) -> None:
        """Load and split (once), and move to the trainer's device (where there is one, and room)."""
        if not self.loaded:
            self.load()
        if self.trainer is not None:
            self.move(self.trainer.strategy.root_device)

    def load(self) -> None:
        train, test, self.class_names, self.targets, self.superclasses = cache.load(self.source)
        images, labels = checked("train", train, self.targets, self.classes)
        rest = torch.arange(len(labels))
        if test is None:
            aside = held_out(labels, one_in=5, seed=TEST_SEED)
            self.parts = {"test": Part(images, labels, rest[aside])}
            rest = rest[~aside]
        else:
            test_images, test_labels = checked("test", test, self.targets, self.classes)
            if test_images.shape[1:] != images.shape[1:]:
                shapes = f"train {tuple(images.shape[1:])}, test {tuple(test_images.shape[1:])}"
                raise ValueError(f"train and test images must have one shape, got {shapes}")
            if test_labels.shape[1:] != labels.shape[1:]:
                lengths = f"train {labels.shape[1]}, test {test_labels.shape[1]}"
                raise ValueError(f"train and test chains must have one length, got {lengths}")
            self.parts = {"test": Part(test_images, test_labels, torch.arange(len(test_labels)))}
        if len(rest) < 10:
            raise ValueError(f"train images must be at least 10 to hold out a tenth, got {len(rest)}")
        if self.folds is None:
            aside = held_out(labels[rest], one_in=10, seed=self.split_seed)
        else:
            aside = in_fold(labels[rest], fold=self.fold, folds=self.folds, seed=self.split_seed)
        self.parts["train"] = Part(images, labels, rest[~aside])
        self.parts["val"] = Part(images, labels, rest[aside])
        self.loaded = True

    def move(self, device: torch.device) -> None:
        """Put all parts on the device; on a GPU only if they take at most half of its free memory."""
        parts = self.parts.values()
        streams = {part.images.to(device) for part in parts if isinstance(part.images, Stream)}
        tensors = {t for part in parts if part.images not in streams for t in (part.images, part.labels)}
        size = sum(tensor.nbytes for tensor in tensors if tensor.device != device)
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // 2:
            return  # Lightning then moves each batch by itself
        moved = {tensor: tensor.to(device) for tensor in tensors}
        self.parts = {
            name: Part(moved.get(images, images), moved.get(labels, labels), chosen)
            for name, (images, labels, chosen) in self.parts.items()
        }

    @property
    def classes(self) -> int:
        """How many classes there are, or attributes, values, or labels of a chain."""
        return len(self.class_names)

    @property
    def structure(self) -> dict[str, Any]:
        """What else the data know of their targets: the coarse label of each class, or the chains' length."""
        if self.targets == "chain":
            return {"length": self.parts["train"].labels.shape[1]}
        return {} if self.superclasses is None else {"superclasses": self.superclasses}

    @property
    def train(self) -> Examples:
        return self.parts["train"].examples()

    @property
    def val(self) -> Examples:
        return self.parts["val"].examples()

    @property
    def test(self) -> Examples:
        return self.parts["test"].examples()

    @property
    def train_images(self) -> Images:
        """The training part alone: all that preprocessing may be fitted on."""
        return self.train[0]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.parts["train"].images.shape
        return channels, height, width

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(self.parts[name].chosen) for name in ("train", "val", "test")}

    def train_dataloader(self) -> Batches:
        return Batches(*self.parts["train"], batch_size=self.batch_size, seed=self.seed)

    def val_dataloader(self) -> Batches:
        return Batches(*self.parts["val"], batch_size=self.batch_size)

    def test_dataloader(self) -> Batches:
        return Batches(*self.parts["test"], batch_size=self.batch_size)

    predict_dataloader = test_dataloader
