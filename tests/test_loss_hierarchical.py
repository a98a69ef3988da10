"""Hierarchical softmax against a walk down the tree, branch by branch."""

import math
import re

import pytest
import torch
from torch.nn import functional as F

import cnnlab
from cnnlab.loss.hierarchical import balanced, coarse


def loss_of(classes, superclasses=None, **knobs):
    loss = cnnlab.create("loss", "hierarchical_softmax", **knobs)
    loss.prepare(classes, superclasses=superclasses)
    return loss


def walked(tree, scores):
    """Class -> log probability; nodes take their scores in order, level by level."""
    level, found = [(tree, 0.0)], {}
    while level:
        below = []
        for node, before in level:
            own = [scores.pop(0) for _ in node]
            total = math.log(sum(map(math.exp, own)))
            for child, score in zip(node, own, strict=True):
                if isinstance(child, list):
                    below.append((child, before + score - total))
                else:
                    found[child] = before + score - total
        level = below
    assert not scores, "each score is that of a branch"
    return [found[label] for label in range(len(found))]


@pytest.mark.parametrize("branches", [2, 3, 4])
@pytest.mark.parametrize("classes", [2, 3, 5, 8, 10, 17])
def test_probabilities_of_a_balanced_tree_are_those_of_the_walk(classes, branches):
    loss = loss_of(classes, branches=branches)
    scores = torch.randn(3, loss.outputs(classes), generator=torch.Generator().manual_seed(0)).double()
    slow = torch.tensor([walked(balanced(list(range(classes)), branches), row.tolist()) for row in scores])
    torch.testing.assert_close(loss.class_scores(scores), slow.double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss.class_scores(scores).exp().sum(1), torch.ones(3).double())
    targets = torch.tensor([0, classes - 1, classes // 2])
    torch.testing.assert_close(loss(scores, targets), F.nll_loss(loss.class_scores(scores), targets))


def test_coarse_labels_make_the_first_choice():
    superclasses = [7, 3, 7, 1, 3]
    loss = loss_of(5, superclasses, tree="coarse")
    assert loss.outputs(5) == 3 + 2 + 2
    scores = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).double()
    slow = torch.tensor([walked([[0, 2], [1, 4], 3], row.tolist()) for row in scores]).double()
    torch.testing.assert_close(loss.class_scores(scores), slow, rtol=1e-6, atol=1e-6)
    first = scores[:, :3].softmax(1)
    members = loss.class_scores(scores).exp()
    torch.testing.assert_close(members[:, 0] + members[:, 2], first[:, 0])


def test_a_tree_of_one_node_is_cross_entropy():
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).double()
    targets = torch.tensor([0, 1, 4, 4])
    together, apart = (loss_of(5, superclasses, tree="coarse") for superclasses in ([2] * 5, range(5)))
    for loss in (loss_of(5, branches=5), together, apart):
        assert loss.outputs(5) == 5
        torch.testing.assert_close(loss(scores, targets), F.cross_entropy(scores, targets))


def test_a_balanced_tree_is_as_flat_as_can_be():
    for classes in range(2, 40):
        depths = (loss_of(classes).paths < loss_of(classes).siblings.numel()).sum(1)
        assert depths.max() - depths.min() <= 1
        assert depths.max() == math.ceil(math.log2(classes))


def test_one_class_is_certain():
    loss = loss_of(1)
    assert loss.outputs(1) == 1
    assert loss(torch.tensor([[3.0]]), torch.tensor([0])).item() == 0
    assert coarse([4]) == [0]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tree": "course"}, "tree must be one of balanced, coarse; got 'course', did you mean 'coarse'?"),
        ({"branches": 1}, "branches must be a whole number >= 2, got 1"),
        ({"tree": "coarse"}, "tree must be balanced where the data have no coarse labels, got 'coarse'"),
    ],
)
def test_a_tree_that_cannot_be_is_refused(knobs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss_of(3, **knobs)
