from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import number, one_of, truth, whole
from cnnlab.model.dense import DenseLayers, check_slides
from cnnlab.model.stack import MAX_2X2, Factory, Stack, check_sizes, sized


class ConvNet(nn.Module):
    """Textbook net: [[conv -> act]*n -> pool]*m -> [dense -> act]*k -> dense.

    m = len(filters) blocks of n = `convs` convolutions with filters[i] filters each, every block ended by a
    pooling; k = len(dense) hidden layers; the last dense layer gives the class scores. `width` multiplies all
    filters and hidden layers. `padding` counts the zeros of a convolution: same (the map keeps its size),
    valid (none) or full (kernel_size - 1 on each side). `batch_norm` stands between a convolution (then
    without bias) and its activation; `dropout` before every dense layer. With filters=[] and dense=[] a
    linear classifier is left.

    `dense_as_conv` lets the dense layers slide over the map: one pass over a larger image gives the scores of
    every window. They are those of cut-out windows to the last digit with padding=valid; other padding puts
    zeros at a window's border where the image has pixels.

    Source: Karpathy et al., CS231n notes, "Layer Patterns"; full and valid: Goodfellow et al. 2016, 9.5.
    Shape: (N, C, H, W) -> (N, classes), with `dense_as_conv` (N, classes, H', W') for a larger image; two
    blocks with 2x2 pools need 4x4 pixels.

    Raises: ValueError where a knob is out of range or the input too small.

    >>> import torch
    >>> net = ConvNet((1, 8, 8), classes=10)
    >>> net(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    >>> sum(p.numel() for p in net.parameters())  # 320 + 9248 + 18496 + 36928 + (2 * 2 * 64 + 1) * 10
    67562
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
        filters: Sequence[int] = (32, 64),
        convs: int = 2,
        kernel_size: int = 3,
        padding: str = "same",
        dense: Sequence[int] = (),
        batch_norm: bool = False,
        dropout: float = 0.0,
        dense_as_conv: bool = False,
    ):
        super().__init__()
        whole("convs", convs, at_least=1)
        whole("kernel_size", kernel_size, at_least=1)
        one_of("padding", padding, ["same", "valid", "full"])
        truth("batch_norm", batch_norm)
        number("dropout", dropout, at_least=0, at_most=1)
        truth("dense_as_conv", dense_as_conv)
        check_sizes("filters", filters)
        check_sizes("dense", dense)

        def build() -> Stack:
            stack = Stack(input_shape[0], conv, activation, pooling, width=width, batch_norm=batch_norm)
            for count in filters:
                for _ in range(convs):
                    stack.conv(count, kernel_size, padding=padding)
                stack.pool()
            stack.drop(dropout)
            return stack

        self.features, shape = sized(build, input_shape, f" for filters {list(filters)}, padding {padding}")
        self.classifier = DenseLayers(
            shape, dense, classes, activation=activation, width=width, dropout=dropout, as_conv=dense_as_conv
        )
        if dense_as_conv:
            check_slides(build, input_shape)

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))
