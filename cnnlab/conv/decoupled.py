"""The decoupled convolutions, one class per magnitude function h of f = h(|x|) g(theta).

All take the knobs of cnnlab.conv.decoupling, where the rest of the formula is.

Source: Liu et al. 2018, Decoupled Networks, arXiv:1804.08071.
Shape of all: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, get_args

import torch
from torch import Tensor

from cnnlab.conv.decoupling import Angular, DecoupledConv2d, Radius, Weighting
from cnnlab.conv.geometry import PaddingMode
from cnnlab.conv.lipschitz import operator_norm
from cnnlab.conv.patch_norm import smallest


class SphereConv2d(DecoupledConv2d):
    """Decoupled convolution whose response depends on the angle alone.

    f = alpha g(theta).  The gradient grows as 1/|x| towards a patch of zeros, where f jumps to 0.

    >>> conv = SphereConv2d(1, 1, (1, 2), bias=False, alpha=2.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # 2 * 7 / (5 sqrt 2)
    1.97989...
    """

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.alpha / norm.masked_fill(norm <= smallest(norm), math.inf)


class BallConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude grows linearly up to a radius and stays there.

    f = alpha min(|x|, rho) / rho g(theta)

    >>> conv = BallConv2d(1, 1, (1, 2), bias=False, alpha=2.0, rho=10.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # 2 * 5/10 * 7 / (5 sqrt 2)
    0.98994...
    """

    knobs: ClassVar[set[str]] = {"rho", "learnable_rho", "radius"}

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.alpha / norm.clamp_min(rho)


class TanhConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude saturates smoothly.

    f = alpha tanh(|x| / rho) g(theta)

    >>> conv = TanhConv2d(1, 1, (1, 2), bias=False, alpha=2.0, rho=5.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # 2 tanh(1) * 7 / (5 sqrt 2)
    1.50787...
    """

    knobs: ClassVar[set[str]] = {"rho", "learnable_rho", "radius"}
    weightings: ClassVar[tuple[str, ...]] = get_args(Weighting)

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.alpha * torch.tanh(norm / rho) / norm


class LinearConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude is proportional to the patch norm.

    f = alpha |x| g(theta).  With angular=cosine it is linear; with weighting=linear and alpha=1 on top it is
    nn.Conv2d.

    >>> conv = LinearConv2d(1, 1, (1, 2), bias=False, alpha=2.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # 2 * 5 * 7 / (5 sqrt 2)
    9.89949...
    """

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.angular == "cosine"

    @property
    def is_convolution(self) -> bool:  # type: ignore[override]
        return self.linear and self.weighting == "linear" and self.alpha == 1

    @property
    def lipschitz(self) -> Callable[[tuple[int, int]], float]:
        if not self.linear:
            raise AttributeError(f"lipschitz() is of linear operators, not of angular={self.angular}")
        return partial(operator_norm, self)

    def forward(self, x: Tensor) -> Tensor:
        if not self.linear:
            return super().forward(x)
        filters = self.alpha * self._filters(self._filter_norm())
        return self._conv_forward(x, filters, self.bias)  # |x| cancels

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return torch.full_like(norm, self.alpha)


class SegConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude is two linear segments of the patch norm.

    f = (alpha min(|x|, rho) + beta max(|x| - rho, 0)) g(theta)

    >>> conv = SegConv2d(1, 1, (1, 2), bias=False, alpha=2.0, rho=3.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # (2 * 3 + 0.5 * 2) * 7 / (5 sqrt 2)
    6.92964...
    """

    knobs: ClassVar[set[str]] = {"beta", "rho", "learnable_rho", "radius"}

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.beta + (self.alpha - self.beta) * rho / norm.clamp_min(rho)


class LogConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude grows with the logarithm of the patch norm.

    f = alpha ln(1 + |x|) g(theta)

    >>> conv = LogConv2d(1, 1, (1, 2), bias=False, alpha=2.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # 2 ln 6 * 7 / (5 sqrt 2)
    3.54750...
    """

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.alpha * torch.log1p(norm) / norm


class MixConv2d(DecoupledConv2d):
    """Decoupled convolution whose magnitude is a linear plus a logarithmic part.

    f = (alpha |x| + beta ln(1 + |x|)) g(theta)

    >>> conv = MixConv2d(1, 1, (1, 2), bias=False, alpha=2.0)
    >>> _ = torch.nn.init.ones_(conv.weight)
    >>> conv(torch.tensor([[[[3.0, 4.0]]]])).item()  # (2 * 5 + ln 6) * 7 / (5 sqrt 2)
    11.67324...
    """

    knobs: ClassVar[set[str]] = {"beta"}

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
        angular: Angular = "cosine",
        sigmoid_k: float = 0.3,
        alpha: float = 1.0,
        beta: float = 1.0,
        rho: float = 1.0,
        learnable_rho: bool = False,
        radius: Radius = "absolute",
        weighting: Weighting = "none",
        weight_rho: float | None = None,
        projection_every: int = 0,
        projection_norm: float = 1.0,
        weighted_gradients: bool = False,
    ) -> None:
        """As the others, but for the default of beta."""
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**arguments)

    def gain(self, norm: Tensor, rho: Tensor | float) -> Tensor:
        return self.alpha + self.beta * torch.log1p(norm) / norm
