from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import number
from cnnlab.model.dense import SlidingLinear
from cnnlab.model.stack import MAX_2X2, Factory, Stack, sized


class ConvPoolCNNC(nn.Module):
    """ConvPool-CNN-C: three 3x3 convolutions before each of two pools, no dense layer.

    [3x3 96]*3 -> pool -> [3x3 192]*3 -> pool -> 3x3 valid 192 -> 1x1 192 -> 1x1 classes -> global average, an
    activation after every convolution but the last, which is a plain one whatever `conv` is: it gives scores.
    `width` multiplies all filters. `input_dropout` drops pixels' values, `dropout` features after each pool.
    The published pools overlap: pooling=overlapping_max.

    Source: Springenberg et al. 2015, Striving for Simplicity, arXiv:1412.6806; with CReLU: Shang et al. 2016,
        arXiv:1603.05201: 2.8 M parameters with the same filters, 0.7 M with half of them.
    Differs: no activation after the class scores.
    Shape: (N, C, H, W) -> (N, classes), H and W at least 12; a larger image is averaged over.

    Raises: ValueError where a knob is out of range or the input too small.

    >>> sum(p.numel() for p in ConvPoolCNNC((3, 32, 32), classes=10).parameters())
    1369738
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
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ):
        super().__init__()
        number("input_dropout", input_dropout, at_least=0, at_most=1)
        number("dropout", dropout, at_least=0, at_most=1)

        def build() -> Stack:
            stack = Stack(input_shape[0], conv, activation, pooling, width=width)
            stack.drop(input_dropout)
            for filters in (96, 192):
                stack.conv(filters, 3)
                stack.conv(filters, 3)
                self.shrink(stack, filters)
                stack.drop(dropout)
            stack.conv(192, 3, padding="valid")
            stack.conv(192, 1)
            return stack

        self.features, (channels, _, _) = sized(build, input_shape)
        self.scores = SlidingLinear((channels, 1, 1), classes)

    @staticmethod
    def shrink(stack: Stack, filters: int) -> None:
        """The third convolution of a block and what halves the map."""
        stack.conv(filters, 3)
        stack.pool()

    def forward(self, input: Tensor) -> Tensor:
        return self.scores(self.features(input)).mean((2, 3))
