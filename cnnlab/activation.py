"""Activations that torch lacks. `expansion` = output channels / input channels, 1 where it is not given."""

import functools
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import number, whole


class CReLU(nn.Module):
    """Concatenated ReLU: positive then negative phase, twice the channels.

    y = ([x]+, [-x]+) along dimension 1: first all positive phases, then all negative ones.

    Source: Shang et al. 2016, arXiv:1603.05201.
    Shape: (N, C, ...) -> (N, 2C, ...)

    >>> CReLU()(torch.tensor([[1.0, -2.0]]))
    tensor([[1., 0., 0., 2.]])
    """

    expansion = 2

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat((input, -input), dim=1).relu_()


class LeakyCReLU(nn.Module):
    """Concatenated leaky ReLU: of x, then of -x, twice the channels.

    y = (l(x), l(-x)) along dimension 1, l(x) = x where x > 0, else negative_slope x.

    Source: Shang et al. 2016, arXiv:1603.05201, for the concatenation; Maas et al. 2013 for the slope.
    Shape: (N, C, ...) -> (N, 2C, ...)

    >>> LeakyCReLU(negative_slope=0.5)(torch.tensor([[1.0, -2.0]]))
    tensor([[ 1.0000, -1.0000, -0.5000,  2.0000]])
    """

    expansion = 2

    def __init__(self, *, negative_slope: float = 0.01):
        super().__init__()
        self.negative_slope = number("negative_slope", negative_slope, at_least=0)

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(torch.cat((input, -input), dim=1), self.negative_slope, inplace=True)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class AVR(nn.Module):
    """Absolute value rectification: y = |x|, the sum of CReLU's two phases.

    Source: Shang et al. 2016, arXiv:1603.05201.
    Shape: any, kept

    >>> AVR()(torch.tensor([[1.0, -2.0]]))
    tensor([[1., 2.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return input.abs()


class Maxout(nn.Module):
    """Maximum over each run of k neighbouring channels, 1/k of the channels.

    y_i = max(x_{ki}, ..., x_{ki+k-1}) along dimension 1.

    Source: Goodfellow et al. 2013, arXiv:1302.4389.
    Shape: (N, kC, ...) -> (N, C, ...)

    Raises: ValueError where k does not divide the channels.

    >>> Maxout(k=2)(torch.tensor([[1.0, -2.0, -4.0, -3.0]]))
    tensor([[ 1., -3.]])
    """

    def __init__(self, *, k: int = 2):
        super().__init__()
        self.k = whole("k", k, at_least=1)
        self.expansion = Fraction(1, k)

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[1] % self.k:
            raise ValueError(f"k must divide the number of channels, {input.shape[1]}, got {self.k}")
        # Pairwise, as amax would lose channels_last.
        return functools.reduce(torch.maximum, input.unflatten(1, (-1, self.k)).unbind(2))

    def extra_repr(self) -> str:
        return f"k={self.k}"
