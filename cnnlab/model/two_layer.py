from collections.abc import Sequence

from torch import nn

from cnnlab.allowed import whole
from cnnlab.model.mlp import MLP
from cnnlab.model.stack import MAX_2X2, Factory


class TwoLayer(MLP):
    """Two-layer network on the flattened image: scores = W2 max(0, W1 x + b1) + b2.

    The multilayer perceptron with one hidden layer of `hidden` units, `width` times as wide; `activation` is
    the max(0, .) by default. It takes `conv` and `pooling` as every model does, and uses neither.

    Source: CS231n, "Neural networks, part 1".
    Shape: (N, C, H, W) -> (N, classes)
    Raises: ValueError where hidden is not a whole number >= 1.

    >>> sum(p.numel() for p in TwoLayer((1, 8, 8), classes=10).parameters())  # 65 * 100 + 101 * 10
    7510
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Factory = nn.Conv2d,
        activation: Factory = nn.ReLU,
        pooling: Factory = MAX_2X2,
        width: float = 1.0,
        hidden: int = 100,
    ):
        dense = [whole("hidden", hidden, at_least=1)]
        super().__init__(input_shape, classes, activation=activation, width=width, dense=dense)
