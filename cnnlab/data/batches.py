"""Batches of a data set, in memory or streamed: what Lightning gets in place of a DataLoader."""

from collections.abc import Iterator

import numpy as np
import torch

from cnnlab.allowed import whole
from cnnlab.data.stream import Stream


class Batches:
    """Batches of images in memory or of a Stream, shuffled anew each epoch by (seed, epoch) or in order.

    The order of an epoch depends on seed and epoch alone, never on the global generators, so a run that is
    stopped and resumed goes on with the very batches it would have seen: Lightning keeps the epoch, and the
    position by `state_dict`. Batches are born on the device of `images`. The last one may be smaller; none is
    dropped.

    `chosen` are the numbers of the examples that are meant; without it all are.

    Shape: images (N, C, H, W), labels (N,), chosen (n,) -> batches (B, C, H, W), (B,).

    >>> batches = Batches(torch.arange(5).view(5, 1, 1, 1), torch.arange(5), batch_size=2)
    >>> len(batches), [labels.tolist() for _, labels in batches]
    (3, [[0, 1], [2, 3], [4]])
    >>> batches.load_state_dict({"batch": 2})  # the next pass starts there, the one after it at 0 again
    >>> [labels.tolist() for _, labels in batches]
    [[4]]
    """

    batch_sampler = None  # Lightning looks for `set_epoch` on `.sampler` and on `.batch_sampler.sampler`

    def __init__(
        self,
        images: torch.Tensor | Stream,
        labels: torch.Tensor,
        chosen: torch.Tensor | None = None,
        *,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.chosen = torch.arange(len(labels)) if chosen is None else chosen
        self.batch_size = whole("batch_size", batch_size, at_least=1)
        self.seed = seed if seed is None else whole("seed", seed, at_least=0)
        self.epoch = 0
        self.first = 0  # batch of the next pass
        self.position = 0  # batches of this pass that were handed out

    @property
    def sampler(self) -> "Batches":
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.position % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.first = state_dict["batch"]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # A generator, so nothing runs before the first `next`: Lightning calls set_epoch() after iter().
        self.position, self.first = self.first, 0
        indices = self.order().to(self.images.device).split(self.batch_size)[self.position :]
        if isinstance(self.images, Stream):
            batches = self.images.batches(indices)
        else:
            batches = (self.images.index_select(0, index) for index in indices)
        for index, images in zip(indices, batches, strict=True):
            self.position += 1
            yield images, self.labels.index_select(0, index)

    def order(self) -> torch.Tensor:
        """The chosen ones in the order of the current epoch."""
        if self.seed is None:
            return self.chosen
        # Mixed, so that neighbouring seeds and epochs share nothing; on the CPU, so the same on any device.
        mixed = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        return self.chosen[torch.randperm(len(self.chosen), generator=generator)]
