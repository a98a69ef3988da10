"""Poolings that torch lacks. `expansion` = output channels / input channels, 1 where it is not given."""

from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import whole
from cnnlab.conv.precision import wide


class L2Pool2d(nn.Module):
    """L2 norm of every window: y = sqrt(sum of x^2), a window and channel at a time.

    Computed in float32 or higher. The gradient at a window of zeros is 0.

    Source: Goodfellow et al. 2016, Deep Learning, 9.3.
    Differs: nn.LPPool2d's gradient at a window of zeros is nan.
    Shape: (N, C, H, W) -> (N, C, floor((H - kernel_size) / stride) + 1, ...)

    >>> import torch
    >>> L2Pool2d()(torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]]]))
    tensor([[[[5.]]]])
    """

    def __init__(self, *, kernel_size: int = 2, stride: int = 2):
        super().__init__()
        self.kernel_size = whole("kernel_size", kernel_size, at_least=1)
        self.stride = whole("stride", stride, at_least=1)

    def forward(self, input: Tensor) -> Tensor:
        x = wide(input)
        squares = F.avg_pool2d(x * x, self.kernel_size, self.stride, divisor_override=1)
        zero = (squares == 0).to(x.dtype)  # where the square root has no slope: sqrt(0 + 1) - 1
        return ((squares + zero).sqrt() - zero).to(input.dtype)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"
