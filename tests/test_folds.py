"""Folds are disjoint, cover the training part and are stratified; runs over folds are replicates."""

import numpy as np
import pytest
import torch

from cnnlab.allowed import RequestError
from cnnlab.build import build_data
from cnnlab.compose import Composer
from cnnlab.data.digits import Digits
from cnnlab.data.folds import in_fold
from cnnlab.data.images import ImageData
from cnnlab.report import find
from cnnlab.report.comparison import by_variant
from cnnlab.report.facts import facts
from cnnlab.report.variants import sections
from cnnlab.result import Result

COMPOSER = Composer()


def masks(labels, folds, seed=0):
    return torch.stack([in_fold(labels, fold=fold, folds=folds, seed=seed) for fold in range(folds)])


@pytest.mark.parametrize("counts", [[10, 10], [1, 1, 1, 97], [11, 21, 31], [0, 5, 0, 6]])
@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_disjoint_cover_all_and_share_each_class_evenly(counts, folds):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    dealt = masks(labels, folds)
    assert (dealt.sum(0) == 1).all()
    assert dealt.sum(1).max() - dealt.sum(1).min() <= 1
    for label in range(len(counts)):
        shares = dealt[:, labels == label].sum(1)
        assert shares.max() - shares.min() <= 1


def test_the_folds_are_drawn_by_split_seed_and_the_same_everywhere():
    labels = torch.arange(2).repeat(6)
    assert in_fold(labels, fold=0, folds=4, seed=0).nonzero().flatten().tolist() == [1, 2, 4]
    assert not torch.equal(masks(labels, 4), masks(labels, 4, seed=1))


def test_targets_that_are_not_one_class_an_image_are_dealt_too():
    for labels in (torch.zeros(10, 3), torch.arange(10.0), torch.zeros(10, 2, dtype=torch.int64)):
        assert (masks(labels, 3).sum(0) == 1).all()


def split(**folds):
    data = ImageData(Digits(), batch_size=8, seed=0, **folds)
    data.setup()
    return data


def test_cross_validation_deals_the_training_part_and_leaves_test_alone():
    plain, parts = split(), [split(folds=5, fold=fold) for fold in range(5)]
    assert all(torch.equal(part.test[0], plain.test[0]) for part in parts)
    assert [part.sizes["val"] for part in parts] == [288, 288, 288, 287, 287]

    def sorted_rows(*images):
        return np.unique(torch.cat(images).flatten(1).numpy(), axis=0, return_counts=True)

    whole = sorted_rows(plain.train[0], plain.val[0])
    for dealt in ([part.val[0] for part in parts], [parts[2].train[0], parts[2].val[0]]):
        assert all(np.array_equal(*pair) for pair in zip(sorted_rows(*dealt), whole, strict=True))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dataset.folds=1"], "dataset.folds=1: must be a whole number >= 2"),
        (["dataset.fold=1"], "dataset.fold=1: must be 0 where folds is null"),
        (["dataset.folds=5", "dataset.fold=5"], "dataset.fold=5: must be a whole number <= 4"),
        (["dataset.folds=5", "dataset.fold=-1"], "dataset.fold=-1: must be a whole number >= 0"),
        (["dataset.folds=9999"], "dataset.folds=9999: must be at most 1438"),
        (["dataset.folds=true"], "dataset.folds=true: must be a whole number"),
    ],
)
def test_a_fold_that_there_is_not_is_one_line(lines, message):
    with pytest.raises(RequestError, match=message):
        build_data(COMPOSER.one(lines))


def run(conv, fold, score, seed=0):
    lines = [f"conv={conv}", "dataset.folds=3", f"dataset.fold={fold}", f"seed={seed}"]
    result = Result.of(COMPOSER.one(lines), status="done", metrics={"val/accuracy": score})
    return find.Run(result, None)


def test_folds_are_replicates_that_pair_as_seeds_do():
    assert run("fft", 0, 0.0).result.variant == run("fft", 2, 0.0).result.variant
    assert run("fft", 0, 0.0).result.id != run("fft", 2, 0.0).result.id
    runs = [run("standard", fold, 0.5 + fold / 10) for fold in range(3)]
    runs += [run("fft", fold, 0.6 + fold / 10 + fold / 100) for fold in range(3)]
    (section,), repeated = sections(runs)
    comparison = by_variant(section, "val/accuracy", {})
    better, baseline = comparison.rows
    assert repeated == 0 and better.score.n == baseline.score.n == 3
    assert baseline.score.mean == pytest.approx(0.6) and baseline.score.deviation == pytest.approx(0.1)
    assert better.difference.mean == pytest.approx(0.11) and better.difference.deviation == pytest.approx(
        0.01
    )
    assert facts([section], 0)["seeds"] == "0; folds 0-2; n = 3 a variant"


def test_seed_and_fold_together_make_a_replicate():
    runs = [run("standard", fold, 0.5, seed) for seed in range(2) for fold in range(3)]
    (section,), repeated = sections(runs)
    assert repeated == 0 and len(section.variants) == 1 and len(section.variants[0].done) == 6
