"""Initial weights: rules that draw a layer's weight and bias in place, for all layers of a net or for one."""

import math
from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cnnlab import conv
from cnnlab.allowed import finite, one_of, whole

Mode = Literal["fan_in", "fan_out"]


@torch.no_grad()
def glorot_uniform_(weight: Tensor, bias: Tensor | None = None) -> None:
    """Draw weight and bias from U(-a, a), a = sqrt(6 / (fan_in + fan_out)), the bias as one more input.

    fan_in = rows of the layer's matrix, [w; b]; fan_out = its columns, the filters.

    Source: Glorot & Bengio 2010; with the bias in the matrix: Singla 2017, orthogonal-convolution.
    Shape: weight (out, in, ...), bias (out,)

    >>> weight, bias = torch.empty(3, 2, 1, 1), torch.empty(3)
    >>> glorot_uniform_(weight, bias)  # a = sqrt(6 / (2 + 1 + 3)) = 1
    >>> bool((weight.abs() <= 1).all() and (bias.abs() <= 1).all() and weight.abs().max() > 0.1)
    True
    """
    filters, rows = len(weight), weight[0].numel() + (bias is not None)
    limit = math.sqrt(6 / (rows + filters))
    weight.uniform_(-limit, limit)
    if bias is not None:
        bias.uniform_(-limit, limit)


class Default:
    """Each layer's own initial weights, as it draws them."""

    def __call__(self, net: nn.Module) -> None:
        pass


class Initializer(ABC):
    """One rule for the weights of all convolutions and dense layers; their biases are set to `bias`.

    Convolutions are drawn through their method `initialize(rule)`, factor by factor where they have several.
    fan_in = in/groups * kh * kw is what an output sums over, fan_out = out * kh * kw.

    Raises: ValueError for a convolution without that method: its parameters are no filters that could be
    drawn by any rule (they generate an orthogonal kernel, are computed or fitted).
    """

    def __init__(self, *, bias: float = 0.0):
        self.bias = finite("bias", bias)

    @abstractmethod
    def draw(self, weight: Tensor) -> None:
        """Fill a weight (out, in, ...) in place."""

    @torch.no_grad()
    def fill(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Draw a layer's weight and set its bias."""
        self.draw(weight)
        if bias is not None:
            bias.fill_(self.bias)

    def __call__(self, net: nn.Module) -> None:
        """Draw the weights of a net's layers, from first to last."""
        convs = set(conv.layers(net).values())
        inside = {part for layer in convs for part in layer.modules()} - convs
        for layer in net.modules():
            if layer in convs and hasattr(layer, "initialize"):
                layer.initialize(self.fill)  # type: ignore[operator]
            elif type(layer) is nn.Conv2d or isinstance(layer, nn.Linear):
                if layer not in inside:
                    self.fill(layer.weight, layer.bias)
            elif layer in convs:
                variant = type(layer).__name__
                raise ValueError(f"no rule can draw {variant}: its filters are computed, or fitted to images")


class Zeros(Initializer):
    """All weights 0, the textbook's mistake: no filter learns to differ.

    Every unit of a layer computes the same and gets the same gradient, so all stay equal; behind a hidden
    layer of zeros the gradients are 0 as well, and but for the last bias nothing moves.

    Source: Karpathy et al., CS231n notes, "Weight Initialization".

    >>> layer = nn.Linear(2, 2)
    >>> Zeros(bias=0.5)(layer)
    >>> layer(torch.ones(2)).tolist()
    [0.5, 0.5]
    """

    def draw(self, weight: Tensor) -> None:
        nn.init.zeros_(weight)


class SmallNormal(Initializer):
    """Small random weights: N(0, std^2), whatever the layer's size.

    Good for shallow nets. A layer multiplies the standard deviation of its input by std * sqrt(fan_in), so in
    deep ones activations and gradients vanish.

    Source: Karpathy et al., CS231n notes; Krizhevsky et al. 2012.

    >>> layer = nn.Linear(1000, 100)
    >>> SmallNormal(std=0.1)(layer)
    >>> round(layer.weight.std().item(), 2), layer.bias.abs().max().item()
    (0.1, 0.0)
    """

    def __init__(self, *, std: float = 0.01, bias: float = 0.0):
        super().__init__(bias=bias)
        self.std = finite("std", std, above=0)

    def draw(self, weight: Tensor) -> None:
        nn.init.normal_(weight, std=self.std)


class Xavier(Initializer):
    """Uniform weights of variance 2 gain^2 / (fan_in + fan_out).

    U(-a, a),  a = gain * sqrt(6 / (fan_in + fan_out)).  With gain 1 it keeps the variance of activations and
    gradients through linear layers, and through tanh near 0.

    Source: Glorot & Bengio 2010.

    >>> layer = nn.Linear(4, 2, bias=False)
    >>> Xavier()(layer)
    >>> bool((layer.weight.abs() <= 1).all())  # sqrt(6 / (4 + 2))
    True
    """

    def __init__(self, *, gain: float = 1.0, bias: float = 0.0):
        super().__init__(bias=bias)
        self.gain = finite("gain", gain, above=0)

    def draw(self, weight: Tensor) -> None:
        nn.init.xavier_uniform_(weight, gain=self.gain)


class He(Initializer):
    """Normal weights of variance 2 / fan, which makes up for the half that ReLU drops.

    mode: fan_in keeps the variance of the activations, fan_out that of the gradients.

    Source: He et al. 2015, arXiv:1502.01852.

    >>> layer = nn.Linear(800, 200)
    >>> He()(layer)
    >>> round(layer.weight.std().item(), 3)  # sqrt(2 / 800)
    0.05
    """

    def __init__(self, *, mode: Mode = "fan_in", bias: float = 0.0):
        super().__init__(bias=bias)
        self.mode = one_of("mode", mode, get_args(Mode))

    def draw(self, weight: Tensor) -> None:
        nn.init.kaiming_normal_(weight, mode=self.mode, nonlinearity="relu")


class Sparse(Initializer):
    """Each unit has a few random inputs, N(0, std^2); its other weights are 0.

    A unit's input does not grow with the layer before it: its variance is connections * std^2 times that of
    the inputs, 0.94 by default. Which weights are 0 is not kept: training moves them all.

    Source: Martens 2010, Deep learning via Hessian-free optimization, 5: 15 connections.
    Differs: nn.init.sparse_ counts the zeros of each input, not of each unit.

    >>> layer = nn.Linear(100, 3)
    >>> Sparse(connections=10)(layer)
    >>> layer.weight.count_nonzero(dim=1).tolist()
    [10, 10, 10]
    """

    def __init__(self, *, connections: int = 15, std: float = 0.25, bias: float = 0.0):
        super().__init__(bias=bias)
        self.connections = whole("connections", connections, at_least=1)
        self.std = finite("std", std, above=0)

    def draw(self, weight: Tensor) -> None:
        rows = torch.rand_like(weight).flatten(1)  # (out, fan_in): each unit's lot
        chosen = rows.topk(min(self.connections, rows.shape[1])).indices
        nn.init.normal_(weight, std=self.std)
        weight.mul_(torch.zeros_like(rows).scatter_(1, chosen, 1).view(weight.shape))


class Orthogonal(Initializer):
    """Orthonormal filters, times gain.

    The Q of a random matrix's QR decomposition; where there are more filters than inputs, the columns are
    orthonormal instead. Unlike conv=orthogonal it holds at the start alone.

    Source: Saxe et al. 2014, arXiv:1312.6120.

    >>> layer = nn.Linear(3, 2)
    >>> Orthogonal(gain=2.0)(layer)
    >>> bool(torch.allclose(layer.weight @ layer.weight.T, 4 * torch.eye(2), atol=1e-5))
    True
    """

    def __init__(self, *, gain: float = 1.0, bias: float = 0.0):
        super().__init__(bias=bias)
        self.gain = finite("gain", gain, above=0)

    def draw(self, weight: Tensor) -> None:
        nn.init.orthogonal_(weight, gain=self.gain)
