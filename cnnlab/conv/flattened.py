"""Filters of rank 1: an outer product of three vectors."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.geometry import dense_macs, output_hw, padded
from cnnlab.conv.separable import SeparableConv2d


class FlattenedConv2d(SeparableConv2d):
    """Flattened convolution: every filter is the outer product of three vectors.

    weight[f, c, y, x] = across[f, c] down[f, y] along[f, x]:  F (C + Y + X) parameters where nn.Conv2d has
    F C Y X, for filters of rank 1. One after the other the vectors take as many multiplications a position.
    Where Y X is at most 1.5 (Y + X), as for 3 x 3, `down` and `along` are applied as one kernel instead: it
    spares a pass over memory and takes F (C + Y X), which `macs()` counts. At k = 1 a 1x1 is left.

    Source: Jin et al. 2015, Flattened Convolutional Neural Networks, arXiv:1412.5474.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = FlattenedConv2d(2, 1, 2, bias=False)
    >>> for factor, values in zip(conv.factors, ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0])):
    ...     factor.weight.data = torch.tensor(values).view_as(factor.weight)
    >>> conv.weight[0].tolist()
    [[[15.0, 18.0], [20.0, 24.0]], [[30.0, 36.0], [40.0, 48.0]]]
    >>> conv(torch.ones(1, 2, 2, 2)).item()  # (1 + 2) * (3 + 4) * (5 + 6)
    231.0
    >>> sum(p.numel() for p in FlattenedConv2d(64, 128, 5).parameters())  # 128 * (64 + 5 + 5) + 128
    9600
    """

    def factorize(self) -> list[nn.Conv2d]:
        out = self.out_channels
        if math.prod(self.kernel_size) == 1:
            return [self.factor("hw", self.in_channels, out, self.groups)]
        return [
            self.factor("", self.in_channels, out, self.groups),
            self.factor("h", out, out, out),
            self.factor("w", out, out, out),
        ]

    def compose(self, *weights: Tensor) -> Tensor:
        across, down, along = weights
        return across * (down * along)

    def forward(self, x: Tensor) -> Tensor:
        if not self._in_two:
            return super().forward(x)
        across, down, along = self.factors
        filters, y = down.weight * along.weight, across(x)  # (F, 1, Y, X)
        if self.padding_mode != "zeros":
            y = padded(self, y)
        padding = self.padding if self.padding_mode == "zeros" else 0
        return F.conv2d(y, filters, self.bias, self.stride, padding, self.dilation, self.out_channels)

    def macs(self, input_hw: tuple[int, int]) -> int:
        if not self._in_two:
            return super().macs(input_hw)
        plane = math.prod(self.kernel_size) * math.prod(output_hw(self, input_hw))
        return dense_macs(self.factors[0], input_hw) + self.out_channels * plane

    @property
    def _in_two(self) -> bool:
        """Whether `down` and `along` go as one kernel; 1.5 is where it stops paying on a CPU."""
        taps = math.prod(self.kernel_size)
        return 1 < taps <= 1.5 * sum(self.kernel_size)
