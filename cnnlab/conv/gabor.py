"""Filters as the first stage of sight has them: stripes of an orientation and a width, under a bell."""

import math

import torch
from torch import Tensor, nn

from cnnlab.allowed import truth
from cnnlab.conv.geometry import PaddingMode, dense_macs
from cnnlab.conv.lipschitz import operator_norm

GOLDEN = (1 + math.sqrt(5)) / 2


class GaborConv2d(nn.Conv2d):
    """Convolution with a bank of Gabor functions.

    w[o, i](x, y) = a[o, i] exp(-bx x'^2 - by y'^2) cos(f x' + phi),
    x' = (x - x0) cos t + (y - y0) sin t,  y' = -(x - x0) sin t + (y - y0) cos t,
    x and y in pixels from the kernel's centre, to the right and down.  Each filter has one function, seen
    through all its input channels with an amplitude a for each.  `functions` holds, a column for each filter,
    the rows log bx, log by, f, phi, t, x0, y0. It and `amplitude` are frozen, and the bias with them, unless
    `trainable`.

    At the start the n filters of a group have the orientations t = pi j/n, j = 0 .. n-1. Wavelengths 2 pi/f,
    log-uniform from 3 pixels to twice the kernel's longer side k, and phases follow the multiples of the
    golden ratio and of sqrt 3 modulo 1, so that any run of filters covers all three evenly.  The bell's
    standard deviation is k/4 across the stripes and k/3 along them.  A filter's amplitudes are a random
    direction; the mean squared norm of the bank's filters is 1, so that white noise keeps its power.

    Source: Goodfellow, Bengio & Courville 2016, Deep Learning, section 9.10; Jones & Palmer 1987, An
    evaluation of the two-dimensional Gabor filter model of simple receptive fields in cat striate cortex.
    Differs: bx and by are kept as logarithms, so that training cannot make them negative.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> conv = GaborConv2d(1, 1, (1, 3), bias=False)
    >>> conv.functions.data = torch.tensor([[math.log(0.25), 0.0, math.pi, 0.0, 0.0, 0.0, 0.0]]).T
    >>> conv.amplitude.data = torch.tensor([[2.0]])
    >>> conv.weight  # 2 exp(-1/4) cos(-pi), 2, 2 exp(-1/4) cos(pi)
    tensor([[[[-1.5576,  2.0000, -1.5576]]]])
    """

    linear = True
    equivariant = True
    is_convolution = True
    macs = dense_macs
    lipschitz = operator_norm

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
        trainable: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        del self._parameters["weight"]  # the property below takes its place
        self.trainable = truth("trainable", trainable)
        self.functions = nn.Parameter(torch.empty(7, out_channels))
        self.amplitude = nn.Parameter(torch.empty(out_channels, in_channels // groups))
        self.reset_parameters()
        self.requires_grad_(trainable)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if "amplitude" not in self._parameters:  # nn.Conv2d's constructor calls this too early
            return
        longest = max(self.kernel_size)
        count = self.out_channels // self.groups
        index = torch.arange(count, dtype=self.functions.dtype, device=self.functions.device)
        wavelength = 3 * (2 * longest / 3) ** (index * GOLDEN % 1)
        ones, zeros = torch.ones_like(index), torch.zeros_like(index)
        bank = [
            ones * math.log(0.5 * (4 / longest) ** 2),
            ones * math.log(0.5 * (3 / longest) ** 2),
            2 * math.pi / wavelength,
            2 * math.pi * (index * math.sqrt(3) % 1),
            math.pi * index / count,
            zeros,
            zeros,
        ]
        self.functions.copy_(torch.stack(bank).repeat(1, self.groups))
        nn.init.normal_(self.amplitude)
        self.amplitude.div_(self.amplitude.norm(dim=1, keepdim=True))
        self.amplitude.mul_(self.weight.flatten(1).square().sum(1).mean().rsqrt())
        if self.bias is not None:
            bound = (self.in_channels // self.groups * math.prod(self.kernel_size)) ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)  # as nn.Conv2d's

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        log_bx, log_by, frequency, phase, angle, x0, y0 = self.functions[..., None, None]  # each (out, 1, 1)
        y, x = (
            torch.arange(size, dtype=frequency.dtype, device=frequency.device) - (size - 1) / 2
            for size in self.kernel_size
        )
        right, down = x - x0, y.unsqueeze(1) - y0  # (out, 1, kw), (out, kh, 1)
        across = right * angle.cos() + down * angle.sin()  # (out, kh, kw)
        along = down * angle.cos() - right * angle.sin()
        bell = torch.exp(-log_bx.exp() * across.square() - log_by.exp() * along.square())
        stripes = bell * torch.cos(frequency * across + phase)
        return self.amplitude[..., None, None] * stripes.unsqueeze(1)  # (out, in/groups, kh, kw)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)
