"""Cross-validation: the training images dealt into folds, each of which is the validation part of one run."""

import numpy as np
import torch

from cnnlab.allowed import whole


def check_folds(folds: int | None, fold: int) -> None:
    """Refuse a fold that is not one of the folds."""
    if folds is None:
        if fold:
            raise ValueError(f"fold must be 0 where folds is null, got {fold!r}")
    else:
        whole("folds", folds, at_least=2)
        whole("fold", fold, at_least=0, at_most=folds - 1)


def in_fold(labels: torch.Tensor, *, fold: int, folds: int, seed: int) -> torch.Tensor:
    """Mask of the examples of a fold; seed draws the folds, which are disjoint and cover all examples.

    Sizes differ by one at most, and so do the numbers of examples of each class; without one class an
    example (labels of several dimensions, or real numbers) all count as one class.

    Source: Kohavi 1995, A study of cross-validation and bootstrap.

    >>> labels = torch.tensor([0] * 6 + [1] * 3)
    >>> masks = [in_fold(labels, fold=fold, folds=3, seed=0) for fold in range(3)]
    >>> [labels[mask].tolist() for mask in masks], sum(masks).tolist()
    ([[0, 0, 1], [0, 0, 1], [0, 0, 1]], [1, 1, 1, 1, 1, 1, 1, 1, 1])
    """
    n = len(labels)
    if folds > n:
        raise ValueError(f"folds must be at most {n}, the training images, got {folds}")
    classes = labels if labels.ndim == 1 and not labels.is_floating_point() else torch.zeros(n)
    # Raw output of a bit generator: NumPy promises it will never change, on any platform.
    lot = np.random.PCG64(seed).random_raw(n)
    order = np.lexsort((lot, classes.numpy()))  # class by class, drawn by lot within
    mask = np.empty(n, dtype=bool)
    mask[order] = np.arange(n) % folds == fold  # dealt like cards
    return torch.from_numpy(mask)
