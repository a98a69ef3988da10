from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import number, truth
from cnnlab.model.dense import DenseLayers
from cnnlab.model.stack import MAX_2X2, Factory, check_sizes


class MLP(nn.Module):
    """Multilayer perceptron on the flattened image: [dense -> act]*k -> dense.

    k = len(dense) hidden layers, `width` times as wide; `dropout` after each. It takes `conv` and `pooling`
    as every model does, and uses neither. `dense_as_conv` slides it over a larger image: the scores are those
    of cut-out windows.

    Source: Rumelhart et al. 1986; dropout: Srivastava et al. 2014.
    Shape: (N, C, H, W) -> (N, classes), with `dense_as_conv` (N, classes, H', W') for a larger image.

    >>> net = MLP((1, 8, 8), classes=10)
    >>> sum(p.numel() for p in net.parameters())  # (64 + 1) * 256 + (256 + 1) * 10
    19210
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
        dense: Sequence[int] = (256,),
        dropout: float = 0.0,
        dense_as_conv: bool = False,
    ):
        super().__init__()
        check_sizes("dense", dense)
        number("dropout", dropout, at_least=0, at_most=1)
        truth("dense_as_conv", dense_as_conv)
        self.classifier = DenseLayers(
            input_shape,
            dense,
            classes,
            activation=activation,
            width=width,
            dropout=dropout,
            as_conv=dense_as_conv,
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(input)
