"""Targets that are not classes: what is taken, how they are split, and the sources that have them."""

import itertools
import re

import numpy as np
import pytest
import torch

import cnnlab
from cnnlab.data.images import ImageData
from cnnlab.data.targets import checked_targets


def source(targets, kind, names, test=None):
    """A source of as many images as targets; the first pixel of an image is its number."""

    class Source:
        class_names = names

        def load(self):
            def part(targets):
                images = np.zeros((len(targets), 1, 2, 2), dtype=np.uint8)
                images[:, 0, 0, 0] = np.arange(len(targets))
                return images, np.array(targets)

            return part(targets), test and part(test)

    Source.targets = kind
    return Source()


def data(word, **knobs):
    data = ImageData(cnnlab.create("dataset", word, **knobs), batch_size=8, seed=0)
    data.setup()
    return data


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("attributes", [[True, False]] * 20, [1.0, 0.0]),
        ("attributes", [[1, 0]] * 20, [1.0, 0.0]),
        ("values", [[1, -3]] * 20, [1.0, -3.0]),
        ("values", [[0.5, 2.25]] * 20, [0.5, 2.25]),
        ("chain", np.array([[0, 1, 1]] * 20, dtype=np.uint8), [0, 1, 1]),
    ],
)
def test_targets_become_what_torchs_losses_take(kind, given, taken):
    images = ImageData(source(given, kind, ["a", "b"]), batch_size=4, seed=0)
    images.setup()
    _, targets = next(iter(images.train_dataloader()))
    assert targets.dtype == (torch.int64 if kind == "chain" else torch.float32)
    assert targets[0].tolist() == taken
    assert images.classes == 2
    assert images.structure == ({"length": 3} if kind == "chain" else {})


@pytest.mark.parametrize(
    ("kind", "targets", "message"),
    [
        ("attributes", [[0, 2]], "train attributes must be 0 or 1, got 0..2"),
        ("attributes", [[0.0, float("nan")]], "train attributes must be finite, got inf or nan"),
        ("attributes", [[0, 1, 1]], "train attributes must be numbers (1, 2), got torch.int64 (1, 3)"),
        ("values", [[0.0, float("inf")]], "train values must be finite, got inf or nan"),
        ("values", [0.0], "train values must be numbers (1, 2), got torch.float32 (1,)"),
        ("values", [[1j, 2j]], "train values must be numbers (1, 2), got torch.complex64 (1, 2)"),
        ("chain", [[0, 2]], "train labels must be 0..1, got 0..2"),
        ("chain", [0], "train labels must be 1 whole numbers, one row an image, got torch.int64 (1,)"),
        ("chain", [[]], "train labels must be 1 whole numbers, one row an image, got torch.float32 (1, 0)"),
        ("tree", [[0]], "targets must be one of class, attributes, values, chain; got 'tree'"),
    ],
)
def test_wrong_targets_are_told_so_in_one_line(kind, targets, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checked_targets("train", torch.tensor(targets), kind=kind, images=1, names=2)


def test_train_and_test_chains_are_of_one_length():
    with pytest.raises(ValueError, match="train and test chains must have one length, got train 2, test 3"):
        ImageData(source([[0, 1]] * 20, "chain", ["a", "b"], [[0, 1, 1]]), batch_size=4, seed=0).setup()


@pytest.mark.parametrize("folds", [None, 3])
def test_parts_are_disjoint_and_complete_whatever_the_targets(folds):
    values = np.arange(100.0).reshape(100, 1)
    images = ImageData(source(values, "values", ["x"]), batch_size=4, seed=0, folds=folds)
    images.setup()
    parts = [targets.flatten().tolist() for _, targets in (images.train, images.val, images.test)]
    assert sorted(itertools.chain(*parts)) == values.flatten().tolist()
    assert all((pixels[:, 0, 0, 0] == targets[:, 0]).all() for pixels, targets in (images.train, images.val))
    assert images.sizes["test"] == 20
    assert images.sizes["val"] == (8 if folds is None else 27)


def test_a_digit_lights_its_segments():
    (_, labels), _ = cnnlab.create("dataset", "digits").load()
    (_, lit), _ = cnnlab.create("dataset", "digits", targets="attributes").load()
    assert len(lit.unique(dim=0)) == 10, "no two numerals look the same"
    assert lit[labels == 8].all()
    assert lit.sum(1)[[0, 1, 2, 7]].tolist() == [6, 2, 5, 3]


def test_the_values_of_digits_are_the_numerals():
    (_, labels), _ = cnnlab.create("dataset", "digits").load()
    (_, values), _ = cnnlab.create("dataset", "digits", targets="values").load()
    assert torch.equal(values, labels.unsqueeze(1).float())


def test_every_digit_is_in_one_chain_at_most():
    (digits, single), _ = cnnlab.create("dataset", "digits").load()
    (images, labels), _ = cnnlab.create("dataset", "digit_chains").load()
    pieces = images.unflatten(3, (4, 8)).permute(0, 3, 1, 2, 4).flatten(0, 1)  # (N * 4, 1, 8, 8)
    known = digits.flatten(1).tolist()
    used = pieces.flatten(1).tolist()
    assert all(used.count(piece) <= known.count(piece) for piece in used)
    assert [single[known.index(piece)].item() for piece in used[:40]] == labels.flatten()[:40].tolist()


def test_numerals_of_a_chain_follow_each_other():
    images, labels = data("digit_chains").train
    assert images.shape[1:] == (1, 8, 32)
    steps = labels.diff(dim=1) % 10
    assert (steps == 1).float().mean().item() == pytest.approx(0.7, abs=0.05)
    others = (steps.flatten().bincount(minlength=10) / steps.numel())[[0, *range(2, 10)]]
    assert others.max() < 0.07  # each 0.3 / 9


@pytest.mark.parametrize("length", [1, 65, 2.0])
def test_a_wrong_length_is_refused(length):
    with pytest.raises(ValueError, match=r"^length must be a whole number"):
        cnnlab.create("dataset", "digit_chains", length=length)
