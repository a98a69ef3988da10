"""Convolution as mathematics defines it: the kernel is mirrored before it slides."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from cnnlab.conv.geometry import PaddingMode
from cnnlab.conv.standard import StandardConv2d


class FlippedConv2d(StandardConv2d):
    """True convolution: the kernel as the textbook writes it, mirrored on both axes.

    y[i, j] = sum_mn kernel[m, n] x[i - m, j - n] + b;  the parameter is `kernel`, `.weight` its mirror image,
    with which nn.Conv2d's cross-correlation does the same. With one channel and full padding (k - 1 on each
    side) image and kernel can change places.

    Source: Goodfellow et al. 2016, Deep Learning, section 9.1.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = FlippedConv2d(1, 1, (1, 2), padding=(0, 1), bias=False)
    >>> conv.kernel.data = torch.tensor([[[[1.0, 2.0]]]])
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).detach()  # (3 + 4z)(1 + 2z) = 3 + 10z + 8z^2
    tensor([[[[ 3., 10.,  8.]]]])
    """

    kernel: nn.Parameter

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
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.register_parameter("kernel", self._parameters.pop("weight"))  # `weight` is a property now

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.kernel.flip(-2, -1)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "kernel" in self._parameters:  # until then, in nn.Conv2d's constructor, it was called weight
            nn.init.kaiming_uniform_(self.kernel, a=math.sqrt(5))

    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw the weights anew by a rule of cnnlab.initializer, in place of nn.Conv2d's."""
        rule(self.kernel, self.bias)
