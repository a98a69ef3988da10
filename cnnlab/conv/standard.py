"""The ordinary convolution, the baseline of every comparison."""

from collections.abc import Callable

from torch import Tensor, nn

from cnnlab.conv.geometry import dense_macs
from cnnlab.conv.lipschitz import operator_norm


class StandardConv2d(nn.Conv2d):
    """Ordinary convolution: the inner product of every patch with every filter.

    y = w . x + b.  It is nn.Conv2d itself, with its initialisation, and states what it is.

    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = StandardConv2d(1, 1, 2, bias=False)
    >>> conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv(torch.tensor([[[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]]])).detach()  # 1*1 + 4*1, 2*2 + 3*1
    tensor([[[[5., 7.]]]])
    >>> conv.macs((2, 3))
    8
    """

    linear = True
    equivariant = True
    is_convolution = True
    macs = dense_macs
    lipschitz = operator_norm

    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw the weights anew by a rule of cnnlab.initializer, in place of nn.Conv2d's."""
        rule(self.weight, self.bias)
