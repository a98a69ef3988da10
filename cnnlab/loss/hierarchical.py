import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import one_of, whole
from cnnlab.conv.precision import wide

Tree = list[Any]  # of a node: its children, each a Tree or a class


class HierarchicalSoftmaxLoss(nn.Module):
    """Cross entropy of a softmax at each node on the way down a tree to the class.

    The batch's mean of -log p(y), where p(y) is the product of the branches' softmax probabilities on the way
    to y. The net gives one score for each branch of each node. The tree is `balanced`, each node dividing its
    classes, in their order, among `branches` (2: left and right) as evenly as can be; or `coarse`: the root
    chooses the data's coarse label, its node the class. A node with one branch is left out.

    Source: Morin & Bengio 2005, Hierarchical probabilistic neural network language model; over given classes
        of words Goodman 2001, Classes for fast maximum entropy training.
    Shape: scores (N, all branches), classes (N,) -> scalar
    Raises: ValueError for branches < 2, and for tree=coarse where the data have no coarse labels.

    >>> loss = HierarchicalSoftmaxLoss()
    >>> loss.prepare(3)  # [[0, 1], 2]: a node and 2, then 0 and 1
    >>> loss.outputs(3), round(loss.at_random(3), 4)  # (ln 4 + ln 4 + ln 2) / 3
    (4, 1.1552)
    >>> loss(torch.tensor([[2.0, 0.0, 1.0, 0.0]]), torch.tensor([1]))  # ln(1 + e^-2) + ln(e^1 + 1)
    tensor(1.4402)
    """

    targets: ClassVar[str] = "class"
    siblings: Tensor  # (nodes, most branches), the scores of each node; filled up with the one after the last
    paths: Tensor  # (classes, depth), the branches to each class as entries of siblings; filled up likewise

    def __init__(self, *, tree: str = "balanced", branches: int = 2) -> None:
        super().__init__()
        self.tree = one_of("tree", tree, ["balanced", "coarse"])
        self.branches = whole("branches", branches, at_least=2)

    def prepare(self, classes: int, *, superclasses: Sequence[int] | None = None) -> None:
        """Build the tree of so many classes, of which `superclasses` are the coarse labels."""
        if self.tree == "balanced":
            tree = balanced(list(range(classes)), self.branches)
        elif superclasses is not None:
            tree = coarse(superclasses)
        else:
            raise ValueError("tree must be balanced where the data have no coarse labels, got 'coarse'")
        nodes, ways = laid_out(tree)
        self.scores = sum(map(len, nodes))
        widest, deepest = max(map(len, nodes)), max(map(len, ways.values()))
        siblings = torch.full((len(nodes), widest), self.scores)
        for row, part in zip(siblings, torch.arange(self.scores).split([*map(len, nodes)]), strict=True):
            row[: len(part)] = part
        paths = torch.full((classes, deepest), siblings.numel())
        for label, way in ways.items():
            paths[label, : len(way)] = torch.tensor([node * widest + branch for node, branch in way])
        self.register_buffer("siblings", siblings, persistent=False)
        self.register_buffer("paths", paths, persistent=False)

    def outputs(self, n: int) -> int:
        return self.scores

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """Of each branch at its node, in the order of `siblings`, and log 1 at the end."""
        at_nodes = F.pad(wide(scores), (0, 1), value=-math.inf)[:, self.siblings]  # (N, nodes, widest)
        return F.pad(at_nodes.log_softmax(2).flatten(1), (0, 1))

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return -self.log_probabilities(scores).gather(1, self.paths[targets]).sum(1).mean()

    def class_scores(self, scores: Tensor) -> Tensor:
        """Log probabilities of the classes, (N, classes)."""
        return self.log_probabilities(scores)[:, self.paths].sum(2)

    def at_random(self, n: int) -> float:
        """With all classes equally frequent."""
        nothing = torch.zeros(1, self.scores, dtype=torch.float64, device=self.paths.device)
        return -float(self.class_scores(nothing).mean())

    def extra_repr(self) -> str:
        return f"tree={self.tree}, branches={self.branches}"


def balanced(labels: list[int], branches: int) -> Tree:
    """
    >>> balanced([0, 1, 2, 3, 4], 2), balanced([0, 1, 2, 3, 4], 3)
    ([[[0, 1], 2], [3, 4]], [[0, 1], [2, 3], 4])
    """
    if len(labels) <= branches:
        return labels
    size, larger = divmod(len(labels), branches)
    starts = [i * size + min(i, larger) for i in range(branches + 1)]
    parts = [labels[start:end] for start, end in itertools.pairwise(starts)]
    return [balanced(part, branches) if len(part) > 1 else part[0] for part in parts]


def coarse(superclasses: Sequence[int]) -> Tree:
    """
    >>> coarse([7, 3, 7, 1]), coarse([0, 0])
    ([[0, 2], 1, 3], [0, 1])
    """
    groups: dict[int, Tree] = {}
    for label, superclass in enumerate(superclasses):
        groups.setdefault(superclass, []).append(label)
    tree = [group if len(group) > 1 else group[0] for group in groups.values()]
    return tree if len(tree) > 1 or not isinstance(tree[0], list) else tree[0]


def laid_out(tree: Tree) -> tuple[list[Tree], dict[int, list[tuple[int, int]]]]:
    """The nodes from the root on, and the way to each class: the nodes passed and the branches taken there.

    >>> laid_out([[0, 2], 1])
    ([[[0, 2], 1], [0, 2]], {1: [(0, 1)], 0: [(0, 0), (1, 0)], 2: [(0, 0), (1, 1)]})
    """
    nodes, ways = [tree], {}
    before: list[list[tuple[int, int]]] = [[]]  # the way to each node
    for at, node in enumerate(nodes):
        for branch, child in enumerate(node):
            way = [*before[at], (at, branch)]
            if isinstance(child, list):
                nodes.append(child)
                before.append(way)
            else:
                ways[child] = way
    return nodes, ways
