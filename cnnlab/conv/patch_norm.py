"""Euclidean length of every patch that a convolution sees, without cutting patches out."""

import torch
from torch import Tensor, nn

from cnnlab.conv.geometry import padded


def patch_norm(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """|patch| at every output position: one sum of squares over channels, one box filter on the single map.

    In float32 or higher. A patch of zeros gets `smallest` instead, so that it can be divided by; its gradient
    is 0.

    Shape: (N, in, H, W) -> (N, 1, H', W'), or (N, out, H', W') with several groups.

    >>> patch_norm(nn.Conv2d(1, 1, 2), torch.tensor([[[[3.0, 0.0, 1.0], [0.0, 4.0, 8.0]]]]))
    tensor([[[[5., 9.]]]])
    """
    full = x.to(torch.promote_types(x.dtype, torch.float32))
    squares = full.unflatten(-3, (conv.groups, -1)).square().sum(-3)  # (N, groups, H, W)
    squares = padded(conv, squares)
    for dim, kernel, dilation in zip((-2, -1), conv.kernel_size, conv.dilation, strict=True):
        length = squares.shape[dim] - dilation * (kernel - 1)
        squares = sum(squares.narrow(dim, tap * dilation, length) for tap in range(kernel))
    squares = squares[..., :: conv.stride[0], :: conv.stride[1]]
    norm = squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
    return norm if conv.groups == 1 else norm.repeat_interleave(conv.out_channels // conv.groups, dim=-3)


def smallest(norm: Tensor) -> float:
    """The length that stands for 0: the root of the smallest normal number."""
    return torch.finfo(norm.dtype).tiny ** 0.5
