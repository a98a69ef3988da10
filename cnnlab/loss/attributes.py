import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.precision import wide


class AttributeHingeLoss(nn.Module):
    """A binary SVM for each attribute: its score must be above 1 where it is there, else below -1.

    The batch's mean of sum_j max(0, 1 - (2 y_j - 1) f_j), y_j in {0, 1}.

    Source: Cortes & Vapnik 1995, Support-vector networks, one machine an attribute.
    Differs: torch's MultiLabelMarginLoss compares the attributes of an image with one another.
    Shape: scores (N, A), attributes (N, A) of 0 and 1 -> scalar

    >>> import torch
    >>> AttributeHingeLoss()(torch.tensor([[0.5, 2.0, -3.0]]), torch.tensor([[1, 0, 0]]))  # .5 + 3 + 0
    tensor(3.5000)
    """

    targets: ClassVar[str] = "attributes"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        signs = 2 * targets.view_as(scores) - 1
        return (1 - signs * wide(scores)).clamp(min=0).sum() / len(scores)

    def at_random(self, n: int) -> float:
        return float(n)


class BinaryCrossEntropyLoss(nn.Module):
    """Cross entropy of a logistic regression for each attribute.

    The batch's mean of -sum_j [y_j log s(f_j) + (1 - y_j) log(1 - s(f_j))], s the logistic function, y_j in
    {0, 1}; its gradient by f_j is s(f_j) - y_j.

    Source: Cox 1958, The regression analysis of binary sequences, one model an attribute.
    Differs: torch's BCEWithLogitsLoss, which computes it, takes the mean over the attributes too. The sum
        without its minus sign is the log-likelihood, which is to be raised.
    Shape: scores (N, A), attributes (N, A) of 0 and 1 -> scalar

    >>> import torch
    >>> BinaryCrossEntropyLoss()(torch.zeros(1, 3), torch.tensor([[1, 0, 0]]))  # 3 ln 2
    tensor(2.0794)
    """

    targets: ClassVar[str] = "attributes"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        scores = wide(scores)
        targets = targets.view_as(scores).to(scores.dtype)
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="sum") / len(scores)

    def at_random(self, n: int) -> float:
        return n * math.log(2)
