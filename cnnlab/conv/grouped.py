"""Channels split into groups that do not see one another, and the shuffle that mixes them again."""

import math

from torch import Tensor
from torch.nn import functional as F

from cnnlab.allowed import whole
from cnnlab.conv.geometry import PaddingMode
from cnnlab.conv.standard import StandardConv2d


def common_groups(groups: int, in_channels: int, out_channels: int) -> int:
    """gcd(groups, in, out): as many of the groups asked for as divide both channel counts evenly.

    >>> common_groups(4, 64, 128), common_groups(4, 6, 8), common_groups(4, 3, 16)
    (4, 2, 1)
    """
    return math.gcd(whole("groups", groups, at_least=1), in_channels, out_channels)


class GroupedConv2d(StandardConv2d):
    """Grouped convolution: each group of filters sees its own group of channels.

    1/g of nn.Conv2d's parameters and multiplications, for g groups.

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks.
    Differs: g = gcd(groups, in, out), where nn.Conv2d refuses channels that the groups do not divide.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = GroupedConv2d(2, 2, 1, bias=False, groups=4)
    >>> conv.groups, conv.macs((1, 1))
    (2, 2)
    >>> conv.weight.data = torch.tensor([2.0, 3.0]).view(2, 1, 1, 1)
    >>> conv(torch.tensor([5.0, 7.0]).view(1, 2, 1, 1)).flatten().tolist()  # 2 * 5, 3 * 7
    [10.0, 21.0]
    """

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


class ShuffledGroupedConv2d(GroupedConv2d):
    """Grouped convolution whose output channels are then shuffled across the groups.

    The outputs, g groups of n, are read as a (g, n) matrix and written transposed, so that the next layer's
    groups see all of this one's. `.weight` and `.bias` are those before the shuffle.

    Source: Zhang et al. 2018, ShuffleNet, arXiv:1707.01083.
    Differs: g = gcd(groups, in, out).
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = ShuffledGroupedConv2d(2, 6, 1, bias=False, groups=2)
    >>> conv.weight.data = torch.arange(6.0).view(6, 1, 1, 1)
    >>> conv(torch.ones(1, 2, 1, 1)).flatten().tolist()  # 0 1 2 and 3 4 5, one from each in turn
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """

    @property
    def is_convolution(self) -> bool:  # type: ignore[override]
        return self.groups in (1, self.out_channels)  # the shuffle moves nothing

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:  # F.channel_shuffle would take the rows for the channels
            return self(x.unsqueeze(0)).squeeze(0)
        return F.channel_shuffle(super().forward(x), self.groups)
