"""Convolutions that are a chain of thinner ones, with nothing in between."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cnnlab.conv.geometry import PaddingMode, dense_macs, output_hw
from cnnlab.conv.grouped import common_groups
from cnnlab.conv.lipschitz import operator_norm
from cnnlab.conv.precision import full_precision


class SeparableConv2d(nn.Conv2d, ABC):
    """A convolution computed factor by factor; `.weight` is the kernel that the factors make together.

    No bias, norm or activation stands between them, so the chain is one convolution. Every factor but the
    last keeps the variance of what it gets and the last is drawn as nn.Conv2d draws: the kernel starts with
    the variance of nn.Conv2d's. `groups` splits every factor: gcd(groups, in, out) of them.
    """

    linear = True
    equivariant = True
    is_convolution = True
    lipschitz = operator_norm
    factors: Sequence[nn.Conv2d]

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
        groups = common_groups(groups, in_channels, out_channels)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        del self._parameters["weight"]  # the property below takes its place
        self.factors = nn.ModuleList(self.factorize())  # type: ignore[assignment]
        self.reset_parameters()

    @abstractmethod
    def factorize(self) -> list[nn.Conv2d]:
        """The factors in the order in which they are applied."""

    @abstractmethod
    def compose(self, *weights: Tensor) -> Tensor:
        """The product of the factors' weights, where there are several: (out, in/groups, kh, kw)."""

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        first, *more = (factor.weight for factor in self.factors)
        return self.compose(first, *more) if more else first

    def factor(self, axes: str, in_channels: int, out_channels: int, groups: int) -> nn.Conv2d:
        """A convolution with this one's geometry along `axes`, some of "hw", and a single tap elsewhere."""

        def along(values: tuple[int, ...], elsewhere: int) -> tuple[int, int]:
            height, width = values
            return height if "h" in axes else elsewhere, width if "w" in axes else elsewhere

        return nn.Conv2d(
            in_channels,
            out_channels,
            along(self.kernel_size, 1),
            along(self.stride, 1),
            self.padding if isinstance(self.padding, str) else along(self.padding, 0),
            along(self.dilation, 1),
            groups,
            bias=False,
            padding_mode=self.padding_mode,
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if "factors" not in self._modules:  # nn.Conv2d's constructor calls this too early
            return
        for factor in self.factors:
            factor.reset_parameters()
            if factor is not self.factors[-1]:
                factor.weight *= math.sqrt(3)  # nn.Conv2d draws a variance of 1 / (3 fan_in)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels // self.groups * math.prod(self.kernel_size))
            nn.init.uniform_(self.bias, -bound, bound)

    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw every factor anew by a rule of cnnlab.initializer, the bias with the last."""
        *first, last = self.factors
        for factor in first:
            rule(factor.weight, None)
        rule(last.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        *first, last = self.factors
        for factor in first:
            x = factor(x)
        return last._conv_forward(x, last.weight, self.bias)

    def macs(self, input_hw: tuple[int, int]) -> int:
        total = 0
        for factor in self.factors:
            total += dense_macs(factor, input_hw)
            input_hw = output_hw(factor, input_hw)
        return total


class DepthwiseSeparableConv2d(SeparableConv2d):
    """Depthwise separable convolution: channels filtered alone, then mixed by a 1x1.

    weight[o, c] = mix[o, c] filter[c].  in k^2 + in out parameters and multiplications a position where
    nn.Conv2d has in out k^2: 1/out + 1/k^2 of it, about 1/k^2 where out is well above k^2. With g groups the
    mixing is grouped: `pointwise_grouped`. At k = 1 the mixing alone is left.

    Source: Chollet 2017, Xception, arXiv:1610.02357; Howard et al. 2017, MobileNets, arXiv:1704.04861;
    grouped mixing: Zhang et al. 2018, ShuffleNet, arXiv:1707.01083.
    Differs: MobileNets have a norm and an activation between the two.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> conv = DepthwiseSeparableConv2d(2, 1, (1, 2), bias=False)
    >>> conv.factors[0].weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(2, 1, 1, 2)
    >>> conv.factors[1].weight.data = torch.tensor([5.0, 6.0]).view(1, 2, 1, 1)
    >>> conv.weight.flatten().tolist()  # 5 * (1, 2), 6 * (3, 4)
    [5.0, 10.0, 18.0, 24.0]
    >>> conv(torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 2, 1, 2)).item()  # 5 * 1 + 6 * 4
    29.0
    >>> DepthwiseSeparableConv2d(64, 128, 3).macs((34, 34))  # 32 * 32 positions * 64 * (9 + 128)
    8978432
    """

    def factorize(self) -> list[nn.Conv2d]:
        if math.prod(self.kernel_size) == 1:
            return [self.factor("hw", self.in_channels, self.out_channels, self.groups)]
        return [
            self.factor("hw", self.in_channels, self.in_channels, self.in_channels),
            self.factor("", self.in_channels, self.out_channels, self.groups),
        ]

    def compose(self, *weights: Tensor) -> Tensor:
        depthwise, mixing = (weight.unflatten(0, (self.groups, -1)) for weight in weights)
        # (g, out/g, in/g, 1, 1) * (g, 1, in/g, kh, kw)
        return (mixing * depthwise.transpose(1, 2)).flatten(0, 1)


class SpatiallySeparableConv2d(SeparableConv2d):
    """Spatially separable convolution: a column of k taps, then a row of k taps.

    weight[o, c] = sum_m row[o, m] column[m, c].  The channels m between the two are the harmonic mean of in
    and out, rounded up: so parameters and multiplications are 2/k of nn.Conv2d's for any in and out. With one
    channel it is the textbook's, 2k parameters for a kernel of rank 1. A kernel with a single row or column
    has nothing to separate and is left as it is.

    Source: Goodfellow et al. 2016, Deep Learning, section 9.8; between many channels: Jaderberg et al. 2014,
    arXiv:1405.3866, and Szegedy et al. 2016, arXiv:1512.00567.
    Differs: Szegedy's have a norm and an activation between the two.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> conv = SpatiallySeparableConv2d(1, 1, 2, bias=False)
    >>> conv.factors[0].weight.data = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
    >>> conv.factors[1].weight.data = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    >>> conv.weight[0, 0].tolist()
    [[3.0, 4.0], [6.0, 8.0]]
    >>> conv(torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]])).item()  # 3 + 4 + 8
    15.0
    >>> SpatiallySeparableConv2d(1, 1, 3).macs((9, 9))  # (9 - 3 + 1) * 9 * 3 + (9 - 3 + 1)^2 * 3, not 7^2 * 9
    336
    """

    def factorize(self) -> list[nn.Conv2d]:
        if min(self.kernel_size) == 1:
            return [self.factor("hw", self.in_channels, self.out_channels, self.groups)]
        c, f = self.in_channels // self.groups, self.out_channels // self.groups
        between = self.groups * -(-2 * c * f // (c + f))
        return [
            self.factor("h", self.in_channels, between, self.groups),
            self.factor("w", between, self.out_channels, self.groups),
        ]

    def compose(self, *weights: Tensor) -> Tensor:
        column, row = (weight.unflatten(0, (self.groups, -1)) for weight in weights)
        with full_precision(row):
            return torch.einsum("gomiw,gmchj->gochw", row, column).flatten(0, 1)
