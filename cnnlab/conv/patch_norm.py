"""Euclidean length of every patch that a convolution sees, without cutting patches out."""

from functools import partial

import torch
from torch import Tensor, nn

from cnnlab.conv.blockwise import blockwise
from cnnlab.conv.geometry import padded
from cnnlab.conv.precision import wide


def patch_norm(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """|patch| at every output position: one sum of squares over channels, one box filter on the single map.

    In float32 or higher. A patch of zeros gets `smallest` instead, so that it can be divided by; its gradient
    is 0.

    Shape: (N, in, H, W) -> (N, groups, H', W').

    >>> patch_norm(nn.Conv2d(1, 1, 2), torch.tensor([[[[3.0, 0.0, 1.0], [0.0, 4.0, 8.0]]]]))
    tensor([[[[5., 9.]]]])
    """
    return blockwise(partial(_patch_norm, conv), [x])


def _patch_norm(conv: nn.Conv2d, x: Tensor) -> Tensor:
    x = wide(x)
    squares = padded(conv, x.unflatten(1, (conv.groups, -1)).square().sum(2))  # (N, groups, H, W)
    geometry = zip((-2, -1), conv.kernel_size, conv.dilation, conv.stride, strict=True)
    for dim, kernel, dilation, stride in geometry:
        squares = squares.unfold(dim, dilation * (kernel - 1) + 1, stride)[..., ::dilation].sum(-1)
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


def smallest(norm: Tensor) -> float:
    """The length that stands for 0: the root of the smallest normal number."""
    return torch.finfo(norm.dtype).tiny ** 0.5
