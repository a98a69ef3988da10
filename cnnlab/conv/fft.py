"""The convolution as a product of spectra."""

from collections.abc import Sequence
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from cnnlab.conv.geometry import padded
from cnnlab.conv.precision import wide
from cnnlab.conv.standard import StandardConv2d


class FFTConv2d(StandardConv2d):
    """Ordinary convolution in the frequency domain: exact, and fast for large kernels.

    y = IFFT(FFT(x) conj(FFT(w))) + b, the products summed over channels at each frequency: one complex matrix
    product. A stride skips outputs, a dilation spreads the kernel. In float32 or higher, under autocast too.
    `macs()` counts the products of the spectra, four real ones for a complex one, which do not depend on the
    size of the kernel; the transforms, O(HW log HW) a channel, are not counted.

    Source: Mathieu et al. 2013, Fast Training of Convolutional Networks through FFTs, arXiv:1312.5851.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> conv = FFTConv2d(1, 1, 2, bias=False)
    >>> conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv(torch.tensor([[[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]]])).detach().round(decimals=4)  # as standard's
    tensor([[[[5., 7.]]]])
    >>> conv.macs((2, 3))  # 4 times 2 rows, 3 // 2 + 1 columns of frequencies
    16
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            return self(x.unsqueeze(0)).squeeze(0)
        images = padded(self, wide(x)).unflatten(1, (self.groups, -1)).transpose(0, 1)
        kernels = self.weight.to(images.dtype).unflatten(0, (self.groups, -1))
        (kh, kw), (dh, dw), (sh, sw) = self.kernel_size, self.dilation, self.stride
        spread = kernels.new_zeros(*kernels.shape[:-2], dh * (kh - 1) + 1, dw * (kw - 1) + 1)
        spread[..., ::dh, ::dw] = kernels
        y = _Correlation.apply(images, spread)  # (groups, N, out/groups, ...), at stride 1
        y = y[..., ::sh, ::sw].transpose(0, 1).flatten(1, 2)
        return (y if self.bias is None else y + self.bias.view(-1, 1, 1)).to(x.dtype)

    def macs(self, input_hw: tuple[int, int]) -> int:
        left, right, top, bottom = self._reversed_padding_repeated_twice
        rows, columns = next_fast_len(input_hw[0] + top + bottom), next_fast_len(input_hw[1] + left + right)
        return 4 * rows * (columns // 2 + 1) * self.out_channels * self.in_channels // self.groups


class _Correlation(torch.autograd.Function):
    """Images (groups, N, in, H, W) and kernels (groups, out, in, h, w), correlated wherever a kernel fits.

    Output and gradients are products of the same three spectra; autograd would transform the gradient of each
    onesided spectrum in full, twice the work.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Tensor) -> Tensor:
        ctx.crops = (rows, columns), (kh, kw) = images.shape[-2:], kernels.shape[-2:]
        if kh > rows or kw > columns:
            raise RuntimeError(f"a kernel {kh} x {kw}, spread, exceeds the padded image, {rows} x {columns}")
        ctx.size = [next_fast_len(rows), next_fast_len(columns)]
        x, w = spectra = _spectrum(images, ctx.size), _spectrum(kernels, ctx.size)
        ctx.save_for_backward(*spectra)
        return _image(x @ w.mH, ctx.size, (rows - kh + 1, columns - kw + 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        y = _spectrum(gradient, ctx.size)
        wanted, (images, kernels) = ctx.needs_input_grad, ctx.crops
        return (
            _image(y @ w, ctx.size, images) if wanted[0] else None,
            _image(y.mH @ x, ctx.size, kernels) if wanted[1] else None,
        )


def _spectrum(planes: Tensor, size: Sequence[int]) -> Tensor:
    """(groups, a, b, h, w) -> (frequencies, groups, a, b), contiguous for the matrix products."""
    return torch.fft.rfft2(planes, s=size).flatten(-2).movedim(-1, 0).contiguous()


def _image(spectrum: Tensor, size: Sequence[int], crop: Sequence[int]) -> Tensor:
    """(frequencies, groups, a, b) -> (groups, a, b, *crop)"""
    planes = torch.fft.irfft2(spectrum.movedim(0, -1).unflatten(-1, (size[0], -1)), s=size)
    return planes[..., : crop[0], : crop[1]]
