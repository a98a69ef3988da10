import math
from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.model.stack import MAX_2X2, Factory


class LinearClassifier(nn.Module):
    """Linear classifier on the flattened image: scores = W x + b.

    With cross entropy the softmax classifier, with a hinge loss the linear SVM. It takes `conv`, `activation`
    and `pooling` as every model does, and uses none.

    Shape: (N, C, H, W) -> (N, classes)

    >>> import torch
    >>> net = LinearClassifier((1, 1, 2), classes=2)
    >>> net.load_state_dict({"dense.weight": torch.tensor([[1., 2.], [3., 4.]]), "dense.bias": torch.ones(2)})
    <All keys matched successfully>
    >>> net(torch.tensor([[[[1., -1.]]]])).tolist()  # [1 - 2 + 1, 3 - 4 + 1]
    [[0.0, 0.0]]
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Factory = nn.Conv2d,
        activation: Factory = nn.ReLU,
        pooling: Factory = MAX_2X2,
    ):
        super().__init__()
        self.dense = nn.Linear(math.prod(input_shape), classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.dense(input.flatten(1))
