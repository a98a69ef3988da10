"""The unit that ShuffleNet is built of, as one drop-in convolution."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import finite
from cnnlab.conv.geometry import PaddingMode, dense_macs, output_hw, padded
from cnnlab.conv.grouped import common_groups


class ShuffleNetUnit(nn.Conv2d):
    """ShuffleNet unit: grouped 1x1, shuffle, depthwise k x k, grouped 1x1; a shortcut.

    grouped 1x1 (in -> m) . norm . ReLU . shuffle . depthwise k x k (m) . norm . grouped 1x1 . norm, plus the
    shortcut; m is `bottleneck` times out, to the nearest multiple of the groups. With in = out = c and a
    stride of 1 it takes hw (2 c m / g + k^2 m) multiplications.

    The shortcut is the pixel in the middle of each window (the input itself where the map keeps its size) or,
    with a stride, the mean of each window. Where out = in it is added; where out > in it is the first `in`
    channels of the output and the chain makes the others; where out < in there is none.

    Source: Zhang et al. 2018, ShuffleNet, arXiv:1707.01083.
    Differs: the last ReLU is left to the activation that the model puts behind it. The second norm has no
    scale and shift, which the next convolution and norm would absorb; `bias` is the shift of the last. The
    paper has shortcuts for stride 1 with in = out (added) and stride 2 with out > in (concatenated); the
    others here are theirs carried on. gcd(groups, in, out) groups.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
    Raises: ValueError for a bottleneck that is not above 0 and finite.

    >>> ShuffleNetUnit(240, 240, 3, padding=1, groups=3).macs((28, 28))  # 28^2 (2 * 240 * 60 / 3 + 9 * 60)
    7949760
    >>> unit = ShuffleNetUnit(1, 2, 1, stride=2).eval()  # out > in: the first channel is the input's
    >>> unit(torch.tensor([[[[3.0, 0.0, 5.0]]]]))[0, 0]
    tensor([[3., 5.]], grad_fn=<SelectBackward0>)
    """

    linear = False
    equivariant = True
    is_convolution = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        bottleneck: float = 0.25,
    ) -> None:
        g = common_groups(groups, in_channels, out_channels)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, g, False, padding_mode
        )
        self.register_parameter("weight", None)  # there is no one kernel
        finite("bottleneck", bottleneck, above=0)
        inner = max(1, round(bottleneck * out_channels / g)) * g
        outer = out_channels - in_channels if out_channels > in_channels else out_channels
        self.reduce = nn.Conv2d(in_channels, inner, 1, groups=g, bias=False)
        self.reduce_norm = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(
            inner, inner, kernel_size, stride, padding, dilation, inner, False, padding_mode
        )
        self.depthwise_norm = nn.BatchNorm2d(inner, affine=False)
        self.expand = nn.Conv2d(inner, outer, 1, groups=g, bias=False)
        self.expand_norm = nn.BatchNorm2d(outer)
        if not bias:
            self.expand_norm.register_parameter("bias", None)

    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw its convolutions anew by a rule of cnnlab.initializer; the norms stay as they are."""
        for convolution in (self.reduce, self.depthwise, self.expand):
            rule(convolution.weight, None)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce_norm(self.reduce(x)))
        y = self.depthwise_norm(self.depthwise(F.channel_shuffle(y, self.groups)))
        y = self.expand_norm(self.expand(y))
        if self.out_channels < self.in_channels:
            return y
        shortcut = self._shortcut(x).to(y.dtype)
        return y + shortcut if self.out_channels == self.in_channels else torch.cat([shortcut, y], -3)

    def _shortcut(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, in, H', W')"""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if self.stride != (1, 1):
            return F.avg_pool2d(padded(self, x), reach, self.stride)
        height, width = output_hw(self, (x.shape[-2], x.shape[-1]))
        top, left = ((length - 1) // 2 for length in reach)
        return padded(self, x)[..., top : top + height, left : left + width]

    def macs(self, input_hw: tuple[int, int]) -> int:
        output = output_hw(self, input_hw)
        return (
            dense_macs(self.reduce, input_hw)
            + dense_macs(self.depthwise, input_hw)
            + dense_macs(self.expand, output)
        )
