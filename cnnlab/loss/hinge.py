from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import finite
from cnnlab.conv.precision import wide


class HingeLoss(nn.Module):
    """Multiclass SVM: every other class must score a margin below the right one.

    The batch's mean of sum_{j != y} max(0, s_j - s_y + margin).

    Source: Weston & Watkins 1999, Support vector machines for multi-class pattern recognition.
    Differs: torch's MultiMarginLoss is this divided by the number of classes; scikit-learn's hinge_loss is
        Crammer & Singer's, with the largest term in place of the sum.
    Shape: scores (N, K), classes (N,) -> scalar
    Raises: ValueError for a margin that is not a finite number > 0.

    >>> import torch
    >>> scores = torch.tensor([[-2.85, 0.86, 0.28]])
    >>> HingeLoss()(scores, torch.tensor([2]))  # max(0, -2.85 - .28 + 1) + max(0, .86 - .28 + 1)
    tensor(1.5800)
    """

    targets: ClassVar[str] = "class"
    power: ClassVar[int] = 1  # of each term

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = float(finite("margin", margin, above=0))

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        mean = F.multi_margin_loss(wide(scores), targets, p=self.power, margin=self.margin)  # over K too
        return mean * scores.shape[1]

    def at_random(self, n: int) -> float:
        return (n - 1) * self.margin**self.power

    def extra_repr(self) -> str:
        return f"margin={self.margin:g}"


class SquaredHingeLoss(HingeLoss):
    """Multiclass SVM whose violated margins count squared (L2-SVM).

    The batch's mean of sum_{j != y} max(0, s_j - s_y + margin)^2.

    Source: Tang 2013, Deep Learning using Linear Support Vector Machines, arXiv:1306.0239, has the square in
        one-vs-rest form; the sum over classes is Weston & Watkins 1999.
    Shape: scores (N, K), classes (N,) -> scalar
    Raises: ValueError for a margin that is not a finite number > 0.

    >>> import torch
    >>> scores = torch.tensor([[-2.85, 0.86, 0.28]])
    >>> SquaredHingeLoss()(scores, torch.tensor([2]))  # 1.58^2
    tensor(2.4964)
    """

    power: ClassVar[int] = 2
