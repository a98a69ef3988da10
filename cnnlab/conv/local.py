"""Unshared weights: kernels that depend on the position, everywhere anew or from tile to tile.

Source: Goodfellow, Bengio & Courville 2016, Deep Learning, section 9.5; LeCun 1989 (locally connected
layers); Gregor & LeCun 2010, arXiv:1006.0448 (tiled convolution).
Differs: the bias is nn.Conv2d's, one per output channel, shared by all positions.
Shape of all: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter, is_lazy

from cnnlab.allowed import whole
from cnnlab.conv.geometry import PaddingMode, dense_macs, output_hw, padded
from cnnlab.conv.lipschitz import operator_norm


def layout(x: Tensor) -> torch.memory_format:
    """Channels last or not: the output is laid out as the input, as nn.Conv2d's is."""
    return (
        torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    )


class UnsharedConv2d(nn.Conv2d):
    """What both have: they are linear, and each kernel is drawn as nn.Conv2d draws its one."""

    linear = True
    macs = dense_macs
    lipschitz = operator_norm

    def reset_parameters(self) -> None:
        bound = (self.in_channels // self.groups * math.prod(self.kernel_size)) ** -0.5
        for parameter in self.parameters():
            if not is_lazy(parameter):
                nn.init.uniform_(parameter, -bound, bound)

    def _positions(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output for an image."""
        image = x.shape[-2], x.shape[-1]
        positions = output_hw(self, image)
        if min(positions) < 1:
            raise ValueError(
                f"kernel_size must fit into the padded image, got {self.kernel_size} for {image}"
            )
        return positions


class LocallyConnectedConv2d(LazyModuleMixin, UnsharedConv2d):
    """Convolution without shared weights: every output position has a kernel of its own.

    y[i, j, k] = sum_lmn w[j, k, m, n, l, i] x[l, j s + m, k s + n] + b[i],  s the stride.
    The weight is (H', W', kh, kw, in/groups, out), a parameter without size until the first forward pass.

    Raises: ValueError for an image that gives other than H' x W' positions.

    >>> conv = LocallyConnectedConv2d(1, 1, (1, 2), bias=False)
    >>> image = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    >>> _ = conv(image)
    >>> conv.weight.data = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 2, 1, 2, 1, 1)
    >>> conv(image).detach()  # 1*1 + 10*2, 100*2 + 1000*3
    tensor([[[[  21., 3200.]]]])
    """

    equivariant = False
    is_convolution = False
    weight: UninitializedParameter
    input_dims = (2, 3, 4)  # of the weight, those that an output sums over

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
        self.weight = UninitializedParameter()  # in place of nn.Conv2d's

    def initialize_parameters(self, x: Tensor) -> None:
        """Called by LazyModuleMixin before the first forward pass."""
        if is_lazy(self.weight):  # a state dict may have given it a size
            channels_in = self.in_channels // self.groups
            self.weight.materialize((*self._positions(x), *self.kernel_size, channels_in, self.out_channels))
            self.reset_parameters()

    @torch.no_grad()
    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw every kernel anew by a rule of cnnlab.initializer."""
        for kernel in self.weight.flatten(0, 1):  # (kh, kw, in/groups, out)
            drawn = kernel.new_empty([kernel.shape[dim] for dim in (3, 2, 0, 1)])
            rule(drawn, self.bias)
            kernel.copy_(drawn.permute(2, 3, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        positions, kernels = self._positions(x), tuple(self.weight.shape[:2])
        if positions != kernels:
            raise ValueError(
                f"input must have {kernels[0]}x{kernels[1]} output positions, one for each kernel, got "
                f"{positions[0]}x{positions[1]} from an image of {x.shape[-2]}x{x.shape[-1]}"
            )
        if x.dim() == 3:  # one image, without a batch
            return self(x.unsqueeze(0)).squeeze(0)
        patches = self._patches(x, positions).unflatten(-1, (self.groups, -1)).movedim(-2, 2).flatten(4)
        weight = self.weight.flatten(2, 4).unflatten(-1, (self.groups, -1)).movedim(-2, 2)
        # A batch of small products: (H', W', groups, N, fan_in) x (H', W', groups, fan_in, out/groups)
        y = (patches @ weight).movedim(2, 3).flatten(3)  # (H', W', N, out)
        if self.bias is not None:
            y = y + self.bias
        return y.permute(2, 3, 0, 1).contiguous(memory_format=layout(x))

    def _patches(self, x: Tensor, positions: tuple[int, int]) -> Tensor:
        """What each position sees: (H', W', N, kh*kw, in).

        Positions first: the batched product reads it in place, and every copy is of whole rows of channels.
        """
        x = padded(self, x).permute(2, 3, 0, 1)  # (H, W, N, in)
        rows, columns = (
            [
                slice(first, first + stride * (count - 1) + 1, stride)
                for first in range(0, kernel * step, step)
            ]
            for kernel, step, stride, count in zip(
                self.kernel_size, self.dilation, self.stride, positions, strict=True
            )
        )
        return torch.stack([x[row, column] for row in rows for column in columns], -2)


class TiledConv2d(UnsharedConv2d):
    """Convolution with t x t kernels that take turns from position to position.

    y[i, j, k] = sum_lmn w[j mod t, k mod t, i, l, m, n] x[l, j s + m, k s + n] + b[i],  t = `tile`, s the
    stride.  The weight is (t, t, out, in/groups, kh, kw); with t = 1 it is nn.Conv2d and has its weight.
    Computed as a convolution for each kernel, over the positions that it has: as many multiplications as one
    convolution. From t = H' on every position has its own kernel; `locally_connected` is then faster.

    >>> conv = TiledConv2d(1, 1, 1, bias=False, tile=2)
    >>> conv.weight.data = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(2, 2, 1, 1, 1, 1)
    >>> conv(torch.ones(1, 1, 3, 3)).detach()
    tensor([[[[   1.,   10.,    1.],
              [ 100., 1000.,  100.],
              [   1.,   10.,    1.]]]])
    """

    input_dims = (-3, -2, -1)  # of the weight, those that an output sums over

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
        tile: int = 2,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.tile = whole("tile", tile, at_least=1)
        self.equivariant = self.is_convolution = tile == 1
        if tile > 1:
            self.weight = nn.Parameter(self.weight.new_empty(tile, tile, *self.weight.shape))
            self.reset_parameters()

    @torch.no_grad()
    def initialize(self, rule: Callable[[Tensor, Tensor | None], None]) -> None:
        """Draw every kernel anew by a rule of cnnlab.initializer."""
        for kernel in self.weight.view(-1, *self.weight.shape[-4:]):
            rule(kernel, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.tile == 1:
            return super().forward(x)
        height, width = self._positions(x)
        image, (down, right) = padded(self, x), self.stride
        strides = down * self.tile, right * self.tile
        parts = {
            (row, column): F.conv2d(
                image[..., row * down :, column * right :],
                self.weight[row, column],
                self.bias,
                strides,
                0,
                self.dilation,
                self.groups,
            )
            for row in range(min(self.tile, height))
            for column in range(min(self.tile, width))
        }
        y = parts[0, 0].new_empty(*parts[0, 0].shape[:-2], height, width).contiguous(memory_format=layout(x))
        for (row, column), part in parts.items():
            y[..., row :: self.tile, column :: self.tile] = part
        return y
