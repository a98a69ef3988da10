from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import truth
from cnnlab.conv.standard import StandardConv2d
from cnnlab.initializer import glorot_uniform_
from cnnlab.model.dense import DenseLayers, check_slides
from cnnlab.model.stack import MAX_2X2, Factory, Stack, sized


class Singla(nn.Module):
    """VGG-like net of Singla's orthogonal convolutions: four conv, two dense layers.

    5x5 same 32 -> 3x3 valid 32 -> pool -> 3x3 same 64 -> 3x3 valid 64 -> pool -> dense 512 -> dense, with an
    activation after every layer but the last and 2x2 max pooling; `width` multiplies all but the classes.
    `dense_as_conv` lets the dense layers slide over a larger image; near a window's border the scores differ
    from those of the cut-out window, whose "same" convolutions see zeros where the image has pixels.

    Source: Singla 2017, github.com/singlasahil14/orthogonal-convolution.
    Initial weights: Glorot's uniform rule over filter and bias together, as there, for the dense layers and
        the convolutions that are nn.Conv2d's inner products (StandardConv2d); other variants keep their own.
    Shape: (N, C, H, W) -> (N, classes), H and W at least 10; 3x32x32 gives 64 maps of 6x6, 2304 features.
        With `dense_as_conv` (N, classes, H', W') for a larger image.

    Raises: ValueError for an input below 10x10 (with the default parts).

    >>> net = Singla((3, 32, 32), classes=10)
    >>> [sum(p.numel() for p in layer.parameters()) for layer in net.features if hasattr(layer, "weight")]
    [2432, 9248, 18496, 36928]
    >>> [sum(p.numel() for p in layer.parameters()) for layer in net.classifier if hasattr(layer, "weight")]
    [1180160, 5130]
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Factory = StandardConv2d,
        activation: Factory = nn.ReLU,
        pooling: Factory = MAX_2X2,
        width: float = 1.0,
        dense_as_conv: bool = False,
    ):
        super().__init__()
        truth("dense_as_conv", dense_as_conv)

        def build() -> Stack:
            stack = Stack(input_shape[0], conv, activation, pooling, width=width)
            for filters, first_kernel in ((32, 5), (64, 3)):
                stack.conv(filters, first_kernel)
                stack.conv(filters, 3, padding="valid")
                stack.pool()
            return stack

        self.features, shape = sized(build, input_shape)
        self.classifier = DenseLayers(
            shape, [512], classes, activation=activation, width=width, as_conv=dense_as_conv
        )
        if dense_as_conv:
            check_slides(build, input_shape)
        for layer in self.features:
            if isinstance(layer, StandardConv2d):
                layer.initialize(glorot_uniform_)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                glorot_uniform_(layer.weight, layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))
