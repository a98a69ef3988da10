"""Batches and the data module: every example once, the same split everywhere, resumable."""

import numpy as np
import pytest
import torch

from cnnlab.data.batches import Batches
from cnnlab.data.digits import Digits
from cnnlab.data.images import ImageData, held_out


class Source:
    """A source from outside: numpy arrays; pixel [0, 0, 0] of an image is its number."""

    def __init__(self, labels, test=None):
        self.labels, self.test, self.class_names = (
            np.array(labels, dtype=None if labels else np.int64),
            test,
            ["a", "b", "c"],
        )

    def load(self):
        images = np.zeros((len(self.labels), 1, 2, 3), dtype=np.uint8)
        images[:, 0, 0, 0] = np.arange(len(self.labels))
        return (images, self.labels), self.test


def numbers(n=10):
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1), torch.arange(n)


def seen(batches):
    return [labels.tolist() for _, labels in batches]


def test_an_epoch_shows_every_example_once_with_its_own_label():
    images, labels = (
        torch.cat(part) for part in zip(*Batches(*numbers(), batch_size=3, seed=1), strict=True)
    )
    assert images.flatten().tolist() == labels.tolist() != list(range(10))
    assert sorted(labels.tolist()) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    orders = set()
    for seed in range(4):
        for epoch in range(4):
            batches = Batches(*numbers(50), batch_size=50, seed=seed)
            batches.set_epoch(epoch)
            before = torch.get_rng_state()
            first = seen(batches)
            assert torch.equal(before, torch.get_rng_state())
            torch.rand(3)
            assert seen(batches) == first
            orders.add(str(first))
    assert len(orders) == 16


def test_an_epoch_resumed_at_a_batch_goes_on_with_the_same_batches():
    batches = Batches(*numbers(), batch_size=3, seed=5)
    whole = seen(batches)
    batches.load_state_dict({"batch": 2})
    assert seen(batches) == whole[2:]
    assert seen(batches) == whole
    assert len(batches) == len(whole) == 4


def test_the_epoch_may_be_set_after_iter_as_lightning_does():
    batches, expected = (Batches(*numbers(), batch_size=3, seed=5) for _ in range(2))
    iterator = iter(batches)
    batches.sampler.set_epoch(3)
    expected.set_epoch(3)
    assert [labels.tolist() for _, labels in iterator] == seen(expected)


def test_writing_into_a_batch_leaves_the_data_alone():
    images, labels = numbers()
    for batch, _ in Batches(images, labels, batch_size=3):
        batch.zero_()
    assert images.flatten().tolist() == list(range(10))


@pytest.mark.parametrize("counts", [[10, 10], [1, 1, 1, 97], [11, 21, 31], [0, 5, 0, 5], [25, 14, 1]])
@pytest.mark.parametrize("one_in", [5, 10])
def test_each_class_gives_its_share_and_the_total_is_round(counts, one_in):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    mask = held_out(labels[torch.randperm(len(labels))], one_in=one_in, seed=3)
    assert mask.sum() == int(sum(counts) / one_in + 0.5)
    mask = held_out(labels, one_in=one_in, seed=3)
    for label, count in enumerate(counts):
        assert abs(int(mask[labels == label].sum()) - count / one_in) < 1


def test_the_split_is_the_same_on_every_machine():
    assert held_out(torch.arange(3).repeat(10), one_in=10, seed=0).nonzero().flatten().tolist() == [3, 11, 13]


def test_validation_depends_on_split_seed_alone_and_test_on_nothing():
    def split(**seeds):
        data = ImageData(Digits(), batch_size=8, **seeds)
        data.setup()
        assert data.sizes == {"train": 1294, "val": 144, "test": 359}
        return data

    first, other_seed, other_split = split(seed=0), split(seed=1), split(seed=0, split_seed=1)
    assert torch.equal(first.val[0], other_seed.val[0])
    assert not torch.equal(first.val[0], other_split.val[0])
    assert torch.equal(first.test[0], other_split.test[0])


def test_train_val_and_test_are_disjoint_and_complete():
    data = ImageData(Source([0, 1] * 50 + [2]), batch_size=4, seed=0)
    data.setup()
    marks = [images[:, 0, 0, 0].tolist() for images, _ in (data.train, data.val, data.test)]
    assert sorted(mark for part in marks for mark in part) == list(range(101))
    assert data.input_shape == (1, 2, 3)
    assert data.classes == 3
    assert all((images[:, 0, 0, 0] % 2 == labels % 2).all() for images, labels in (data.train, data.val))
    data.setup("test")
    assert data.sizes == {"train": 73, "val": 8, "test": 20}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3] * 20, "train labels must be 0..2, got 0..3"),
        ([0, -1] * 20, "train labels must be 0..2, got -1..0"),
        ([0.5] * 20, "train labels must be 20 whole numbers"),
        ([0] * 9, "train images must be at least 10"),
        ([], "train images must be at least one"),
    ],
)
def test_a_source_that_breaks_its_promise_is_told_so(labels, message):
    test = np.zeros((1, 1, 2, 3), dtype=np.uint8), np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match=message):
        ImageData(Source(labels, test), batch_size=4, seed=0).setup()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning calling torch
def test_lightning_trains_on_the_batches_of_each_epoch():
    import pytorch_lightning as pl

    orders = []

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, index):
            orders.append(batch[1].tolist())
            return self.weight * 1

        def validation_step(self, batch, index):
            pass

        def predict_step(self, batch, index):
            return batch[1]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = ImageData(Source([0, 1, 2] * 10), batch_size=8, seed=7)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), data)
    expected = data.train_dataloader()
    wanted = seen(expected)
    expected.set_epoch(1)
    assert orders == wanted + seen(expected)
    assert torch.equal(torch.cat(trainer.predict(Net(), data)), data.test[1])
