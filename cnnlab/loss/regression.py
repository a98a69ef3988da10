from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.precision import wide


class L2Loss(nn.Module):
    """Squared L2 distance between scores and values.

    The batch's mean of |f - y|^2 = sum_j (f_j - y_j)^2; its gradient by f_j is 2 (f_j - y_j).

    Differs: torch's MSELoss takes the mean over the outputs too.
    Shape: scores (N, D), values (N, D) -> scalar

    >>> import torch
    >>> scores, values = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, 2.0], [0.0, -1.0]])
    >>> L2Loss()(scores, values)  # (3^2 + 1^2) / 2
    tensor(5.)
    """

    targets: ClassVar[str] = "values"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(wide(scores), targets.view_as(scores), reduction="sum") / len(scores)


class L1Loss(nn.Module):
    """L1 distance between scores and values: large errors count no more than in proportion.

    The batch's mean of |f - y|_1 = sum_j |f_j - y_j|; its gradient by f_j is sign(f_j - y_j).

    Differs: torch's L1Loss takes the mean over the outputs too.
    Shape: scores (N, D), values (N, D) -> scalar

    >>> import torch
    >>> scores, values = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[4.0, 2.0], [0.0, -1.0]])
    >>> L1Loss()(scores, values)  # (3 + 1) / 2
    tensor(2.)
    """

    targets: ClassVar[str] = "values"

    def __init__(self) -> None:
        super().__init__()

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(wide(scores), targets.view_as(scores), reduction="sum") / len(scores)
