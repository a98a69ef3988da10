"""Orthogonal as an operator: the exponential of a skew-symmetric convolution."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlab.allowed import number, whole
from cnnlab.conv.geometry import PaddingMode
from cnnlab.conv.isometry import IsometricConv2d
from cnnlab.conv.precision import full_precision

SQUARINGS = 5  # the norm is then overestimated by at most rank^(1/128)


def spectral_bound(matrix: Tensor, squarings: int = SQUARINGS) -> Tensor:
    """Upper bound of a matrix's largest singular value by Gram iteration: |(A A^T)^(2^s)|_F^(1 / 2^(s + 1)).

    It is the Schatten norm of order 2^(s + 2): never too small, at most rank^(1 / 2^(s + 2)) times too large.
    Matrix products alone, without a state that training would have to keep.

    Source: Delattre et al. 2023, arXiv:2305.16173.
    Shape: (..., m, n) -> (...).

    >>> spectral_bound(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), squarings=0)  # (3^4 + 4^4)^(1/4)
    tensor(4.2846)
    >>> spectral_bound(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor(4.0000)
    """
    tiny = torch.finfo(matrix.dtype).tiny
    size = torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(tiny)
    matrix, bound, root = matrix / size, size, 1.0
    for doubling in range(squarings + 1):
        matrix = matrix @ matrix.mT if doubling == 0 else matrix @ matrix
        size = torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(tiny)
        matrix, root = matrix / size, root / 2
        bound = bound * size**root
    return bound[..., 0, 0]


class SkewOrthogonalConv2d(IsometricConv2d):
    """Norm-preserving convolution: the exponential of a skew-symmetric convolution.

    y = exp(J) x + b ~ x + J x + J^2 x / 2! + ... + J^terms x / terms! + b,  J x = conv(x, S),
    S = angle (K - flip(K)^T) / bound: K is the weight with channels of zeros added until there are as many in
    as out, ^T swaps them, bound >= |conv(., K - flip(K)^T)|. So |J| <= angle (radians: how far images are
    turned), and singular values are 1 up to the series' remainder angle^(terms + 1) / (terms + 1)!.
    Orthogonal as an operator on whole images: |y - b| = |x| with room and padding as in cnnlab.conv.isometry,
    zero padding included, for J is skew there too: the same taps are cut off in the convolution and in its
    transpose. An even kernel gets a row and a column of zeros first.

    Source: Singla & Feizi 2021, Skew Orthogonal Convolutions, arXiv:2105.11417; the bound: Singla & Feizi
    2021, Fantastic Four, arXiv:1911.10258.
    Differs: K has the shape and the number of weights of nn.Conv2d's; the code's is square. The code finds
    the bound by power iterations, so from below, and drops its factor sqrt(kh kw) for one of 1/.7: |J| can be
    2.1 for a 3x3 kernel, with 5 terms in training, 12 after. Here the bound is sure, the terms are the same.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
    Raises: NotImplementedError as cnnlab.conv.isometry.

    >>> conv = SkewOrthogonalConv2d(1, 1, (1, 3), padding="same", bias=False, terms=20)
    >>> conv.weight.data = torch.tensor([[[[0.0, 0.0, 5.0]]]])  # S = (-1, 0, 1) / (sqrt 2 sqrt 3)
    >>> conv(torch.tensor([[[[0.0, 1.0, 0.0]]]])).detach()  # cos t and +-sin t / sqrt 2, t = 1 / sqrt 3
    tensor([[[[ 0.3859,  0.8379, -0.3859]]]])
    """

    keeps_zeros: ClassVar[bool] = True

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
        terms: int = 6,
        angle: float = 1.0,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        self.terms = whole("terms", terms, at_least=1, at_most=100)
        self.angle = number("angle", angle, above=0)
        if angle > math.pi:
            raise ValueError(f"angle must be at most pi, got {angle}")

    @property
    def tolerance(self) -> float:
        """Of violation(): the series' remainder and rounding in float32."""
        return self.angle ** (self.terms + 1) / math.factorial(self.terms + 1) + 1e-5

    def skew_kernel(self, kernel: Tensor) -> Tensor:
        """S of every group: (groups, channels, channels, kh, kw), channels = max(in h w, out) / groups."""
        kernel = kernel.unflatten(0, (self.groups, -1))
        rows, columns = kernel.shape[1:3]
        kernel = F.pad(kernel, (0, 0, 0, 0, 0, max(rows - columns, 0), 0, max(columns - rows, 0)))
        skew = kernel - kernel.transpose(1, 2).flip(-2, -1)
        # Four reshaped matrices bound the norm; of a skew kernel two are the other two's transposes.
        wide = skew.flatten(2)  # (groups, channels, channels * kh * kw)
        tall = skew.transpose(2, 3).flatten(3).flatten(1, 2)  # (groups, channels * kh, channels * kw)
        bound = torch.minimum(spectral_bound(wide), spectral_bound(tall)) * skew[0, 0, 0].numel() ** 0.5
        return self.angle * skew / bound.clamp_min(1e-12).view(-1, 1, 1, 1, 1)

    def isometry(self, blocks: Tensor, kernel: Tensor, circular: bool) -> Tensor:
        with full_precision(kernel):
            skew = self.skew_kernel(kernel).to(blocks.dtype)
        missing = skew.shape[1] - kernel.shape[1]
        x = blocks.unflatten(1, (self.groups, -1))
        x = F.pad(x, (0, 0, 0, 0, 0, missing)).flatten(1, 2)  # (N, groups * channels, H, W)
        skew, (height, width), y = skew.flatten(0, 1), self.radius, x
        for i in range(self.terms, 0, -1):  # Horner: x + J (x + J/2 (x + J/3 ...))
            if circular:
                y = F.conv2d(F.pad(y, (width, width, height, height), "circular"), skew, groups=self.groups)
            else:
                y = F.conv2d(y, skew, padding=self.radius, groups=self.groups)
            y = torch.add(x, y, alpha=1 / i)
        return y.unflatten(1, (self.groups, -1))[:, :, : self.out_channels // self.groups].flatten(1, 2)

    def macs(self, input_hw: tuple[int, int]) -> int:
        """Of the `terms` convolutions of the series."""
        channels = max(self.in_channels * math.prod(self.stride), self.out_channels)
        taps = math.prod(2 * radius + 1 for radius in self.radius)
        return self.terms * math.prod(self.blocks_hw(input_hw)) * channels**2 // self.groups * taps
