"""Orthogonal as an operator on the torus: the Cayley map of every frequency's matrix."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from cnnlab.conv.isometry import IsometricConv2d
from cnnlab.conv.precision import full_precision


def cayley(matrix: Tensor) -> Tensor:
    """Matrices with orthonormal columns by the Cayley map; wide ones get orthonormal rows.

    W = [U; V] -> [(I - A) (I + A)^-1; -2 V (I + A)^-1],  A = U - U^H + V^H V,  U square.

    Shape: (..., m, n) -> (..., m, n), real or complex.

    >>> cayley(torch.tensor([[7.0, 0.5], [0.0, 7.0]]))  # [[1 - t^2, -2t], [2t, 1 - t^2]] / (1 + t^2), t = 1/2
    tensor([[ 0.6000, -0.8000],
            [ 0.8000,  0.6000]])
    >>> cayley(torch.tensor([[7.0], [0.5]])).T  # (1 - v^2, -2v) / (1 + v^2), v = 1/2
    tensor([[ 0.6000, -0.8000]])
    """
    rows, columns = matrix.shape[-2:]
    if rows < columns:
        return cayley(matrix.mH).mH
    square, rest = matrix.split([columns, rows - columns], dim=-2)
    identity = torch.eye(columns, dtype=matrix.dtype, device=matrix.device)
    skew = square - square.mH + rest.mH @ rest
    # I + A has no singular value below 1: nothing to check, which would wait for the device.
    inverted = _inverse(identity + skew)
    return torch.cat([2 * inverted - identity, -2 * rest @ inverted], dim=-2)


def _inverse(matrix: Tensor) -> Tensor:
    """Of each matrix; on a CPU large ones one by one: with several threads MKL's batched LU fails on them."""
    if matrix.device.type != "cpu" or matrix.shape[-1] <= 64:
        return torch.linalg.inv_ex(matrix).inverse
    return torch.stack([torch.linalg.inv_ex(one).inverse for one in matrix.flatten(0, -3)]).view_as(matrix)


def frequency_response(kernel: Tensor, hw: tuple[int, int]) -> Tensor:
    """sum_t K_t exp(i omega t) over the taps of an odd kernel, t = 0 its centre, for each frequency of rfft2.

    Shape: (out, in, kh, kw) -> (W // 2 + 1, H, out, in), complex.
    """
    phases = []
    for taps, size, frequencies in zip(kernel.shape[2:], hw, (hw[0], hw[1] // 2 + 1), strict=True):
        frequency = torch.arange(frequencies, device=kernel.device)
        tap = torch.arange(taps, device=kernel.device) - taps // 2
        turns = (frequency[:, None] * tap % size).to(kernel.dtype) / size  # whole turns go before rounding
        phases.append(torch.polar(torch.ones_like(turns), 2 * math.pi * turns))
    response = torch.tensordot(phases[1], kernel.permute(3, 2, 0, 1).to(phases[1].dtype), 1)
    return (phases[0] @ response.flatten(2)).unflatten(2, kernel.shape[:2])


class CayleyConv2d(IsometricConv2d):
    """Norm-preserving convolution on the torus: a Cayley map at every frequency.

    y = F^-1 cayley(W(omega)) F x + b,  W(omega) (out, in) the frequency response of conv(., weight), F the
    Fourier transform of the image's height and width; computed in float32.
    Orthogonal as an operator on images that wrap around: with padding_mode=circular |y - b| = |x|, given the
    room and the padding of cnnlab.conv.isometry. With zero padding the padded image is taken for a torus and
    the output is cropped: 1-Lipschitz, *not* norm-preserving. An image whose size the stride does not divide
    gets zeros at its end first.

    Source: Trockman & Kolter 2021, Orthogonalizing Convolutional Layers with the Cayley Transform,
    arXiv:2104.07167.
    Differs: the code wraps around whatever the padding, takes square images, halves the kernel for stride 2,
    and scales the weight by a trained number, which is its norm at the start.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
    Raises: NotImplementedError as cnnlab.conv.isometry.

    >>> conv = CayleyConv2d(1, 1, (1, 3), padding="same", padding_mode="circular", bias=False)
    >>> conv.weight.data = torch.tensor([[[[0.0, 0.0, 1.0]]]])  # at frequencies 0, 1, 2: 1, (-3 - 4i)/5, 1
    >>> conv(torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])).detach()
    tensor([[[[ 0.2000,  0.4000,  0.8000, -0.4000]]]])
    """

    keeps_zeros: ClassVar[bool] = False
    tolerance = 1e-5  # of violation(), in float32

    def isometry(self, blocks: Tensor, kernel: Tensor, circular: bool) -> Tensor:
        hw, groups = (blocks.shape[-2], blocks.shape[-1]), self.groups
        with full_precision(blocks):
            q = cayley(frequency_response(kernel, hw).unflatten(2, (groups, -1)))  # (W', H, groups, out, in)
            # The complex product as a real one of twice the size: [[Re, -Im], [Im, Re]] on (Re, Im).
            q = torch.cat([torch.cat([q.real, -q.imag], -1), torch.cat([q.imag, q.real], -1)], -2)
            x = torch.view_as_real(torch.fft.rfft2(blocks.to(kernel.dtype)))  # (N, in, H, W', 2)
            x = x.unflatten(1, (groups, -1)).permute(4, 3, 1, 5, 2, 0)  # (W', H, groups, 2, in, N)
            y = q @ x.flatten(3, 4)
            y = y.unflatten(3, (2, -1)).permute(5, 2, 4, 1, 0, 3).flatten(1, 2)  # (N, out, H, W', 2)
            y = torch.fft.irfft2(torch.view_as_complex(y.contiguous()), hw)
        return y.to(blocks.dtype)

    def macs(self, input_hw: tuple[int, int]) -> int:
        """Of the products of complex matrices, four real ones each; the Fourier transforms not counted."""
        height, width = self.blocks_hw(input_hw)
        channels = self.in_channels * math.prod(self.stride) // self.groups
        return 4 * height * (width // 2 + 1) * channels * self.out_channels
