from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import number, truth, whole
from cnnlab.model.dense import DenseLayers, check_slides
from cnnlab.model.stack import MAX_2X2, Factory, Stack, sized


class AlexNet(nn.Module):
    """AlexNet: five convolutions and three dense layers for images of 227x227.

    11x11 96 /4 valid -> norm -> pool -> 5x5 256 -> norm -> pool -> 3x3 384 -> 3x3 384 -> 3x3 256 -> pool ->
    dense 4096 -> dense 4096 -> dense, with an activation after every layer but the last, before the norm. The
    second, fourth and fifth convolution have `groups`, one for each of the two GPUs it was trained on (their
    common divisor with the channels). `norm` is local response normalisation; `dropout` follows both hidden
    dense layers; `width` multiplies all but the classes. The published pools overlap:
    pooling=overlapping_max, which at 227x227 gives maps of the same size.
    `dense_as_conv` lets the dense layers slide over a larger image; near a window's border the scores differ
    from those of the cut-out window, whose convolutions see zeros where the image has pixels.

    Source: Krizhevsky et al. 2012.
    Differs: the parts' own initial weights, not N(0, 0.01) with biases of 1.
    Shape: (N, C, H, W) -> (N, classes), with `dense_as_conv` (N, classes, H', W') for a larger image.

    Raises: ValueError where a knob is out of range or the input too small.

    >>> import torch
    >>> with torch.device("meta"):
    ...     sum(p.numel() for p in AlexNet((3, 227, 227), classes=1000).parameters())
    60965224
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
        groups: int = 2,
        norm: bool = True,
        dropout: float = 0.5,
        dense_as_conv: bool = False,
    ):
        super().__init__()
        whole("groups", groups, at_least=1)
        truth("norm", norm)
        number("dropout", dropout, at_least=0, at_most=1)
        truth("dense_as_conv", dense_as_conv)

        def build() -> Stack:
            stack = Stack(input_shape[0], conv, activation, pooling, width=width)

            def norm_and_pool() -> None:
                if norm:  # the paper's alpha, 1e-4, is not divided by the size
                    stack.add(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2), stack.channels)
                stack.pool()

            stack.conv(96, 11, stride=4, padding="valid")
            norm_and_pool()
            stack.conv(256, 5, groups=groups)
            norm_and_pool()
            stack.conv(384, 3)
            stack.conv(384, 3, groups=groups)
            stack.conv(256, 3, groups=groups)
            stack.pool()
            return stack

        self.features, shape = sized(build, input_shape)
        self.classifier = DenseLayers(
            shape,
            [4096, 4096],
            classes,
            activation=activation,
            width=width,
            dropout=dropout,
            as_conv=dense_as_conv,
        )
        if dense_as_conv:
            check_slides(build, input_shape)

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))
