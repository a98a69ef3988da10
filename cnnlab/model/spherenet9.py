from collections.abc import Sequence

from torch import Tensor, nn

from cnnlab.allowed import truth
from cnnlab.model.dense import DenseLayers
from cnnlab.model.stack import MAX_2X2, Factory, Stack, sized


class SphereNet9(nn.Module):
    """SphereNet's nine-layer net: three 3x3 convolutions before each of three pools.

    [3x3 128]*3 -> pool -> [3x3 192]*3 -> pool -> [3x3 256]*3 -> pool -> valid 256, as large as the map (4x4
    for 32x32 images) -> 1x1 classes, with batch norm and an activation after every convolution but the last,
    which is a plain one whatever `conv` is. `width` multiplies all filters.

    Source: Liu et al. 2017, Deep Hyperspherical Learning, arXiv:1711.03189; github.com/wy1iu/SphereNet.
    Shape: (N, C, H, W) -> (N, classes), H and W at least 8; (N, classes, H', W') for a larger image than the
        one it was built for.

    Raises: ValueError for too small an input.

    >>> net = SphereNet9((3, 32, 32), classes=10)
    >>> sum(p.numel() for p in net.parameters())  # 3,853,696 in convolutions + 3,968 in norms + 2,570
    3860234
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
        batch_norm: bool = True,
    ):
        super().__init__()
        truth("batch_norm", batch_norm)

        def stack_on(channels: int) -> Stack:
            return Stack(channels, conv, activation, pooling, width=width, batch_norm=batch_norm)

        def build() -> Stack:
            stack = stack_on(input_shape[0])
            for filters in (128, 192, 256):
                for _ in range(3):
                    stack.conv(filters, 3)
                stack.pool()
            return stack

        def build_last() -> Stack:
            stack = stack_on(shape[0])
            (down, right), (_, height, wide) = stack.dilation(256, 1), shape
            stack.conv(256, ((height - 1) // down + 1, (wide - 1) // right + 1), padding="valid")
            return stack

        self.features, shape = sized(build, input_shape)
        last, shape = sized(build_last, shape)
        self.features.extend(last)
        self.classifier = DenseLayers(shape, [], classes, as_conv=True)

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))
