import math
from typing import ClassVar

from torch import nn

from cnnlab.allowed import number


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """Cross entropy of the softmax of the scores against the class.

    The batch's mean of -log(exp(s_y) / sum_j exp(s_j)). Label smoothing e sets the target to 1 - e + e/K for
    the class and to e/K for the others.

    Differs: it is torch's, but refuses a wrong label_smoothing when it is built, not in the first batch.
    Shape: scores (N, K), classes (N,) -> scalar

    Raises: ValueError for label_smoothing outside [0, 1].

    >>> import torch
    >>> CrossEntropyLoss()(torch.tensor([[-2.85, 0.86, 0.28]]), torch.tensor([2]))
    tensor(1.0402)
    """

    targets: ClassVar[str] = "class"

    def __init__(self, *, label_smoothing: float = 0.0):
        number("label_smoothing", label_smoothing, at_least=0, at_most=1)
        super().__init__(label_smoothing=label_smoothing)

    def at_random(self, n: int) -> float:
        return math.log(n)
