"""Sizes and counts that follow from nn.Conv2d's attributes alone."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def padded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The image with a convolution's own padding around it, "same" and every padding mode included.

    >>> import torch
    >>> padded(nn.Conv2d(1, 1, 2, padding=(0, 1), padding_mode="replicate"), torch.tensor([[[[3.0, 4.0]]]]))
    tensor([[[[3., 3., 4., 4.]]]])
    """
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    return F.pad(x, conv._reversed_padding_repeated_twice, mode)


def output_hw(conv: nn.Conv2d, input_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a convolution's output.

    >>> output_hw(nn.Conv2d(1, 1, 3, stride=2, padding=1), (9, 8))
    (5, 4)
    >>> output_hw(nn.Conv2d(1, 1, 4, padding="same", dilation=2), (9, 8))
    (9, 8)
    """
    left, right, top, bottom = conv._reversed_padding_repeated_twice  # resolves "same" and "valid" too
    padded = (input_hw[0] + top + bottom, input_hw[1] + left + right)
    height, width = (
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            padded, conv.kernel_size, conv.stride, conv.dilation, strict=True
        )
    )
    return height, width


def dense_macs(conv: nn.Conv2d, input_hw: tuple[int, int]) -> int:
    """Multiply-accumulates of the convolution for one image; bias, norms and building the kernel not counted.

    >>> dense_macs(nn.Conv2d(4, 6, 3, groups=2), (5, 5))  # 3*3 positions * 6 filters * 2 channels * 9 taps
    972
    """
    taps = math.prod(conv.kernel_size) * conv.in_channels // conv.groups
    return math.prod(output_hw(conv, input_hw)) * conv.out_channels * taps
