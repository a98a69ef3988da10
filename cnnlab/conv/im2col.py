"""The convolution as one matrix product: the readable reference."""

from torch import Tensor
from torch.nn import functional as F

from cnnlab.conv.geometry import output_hw, padded
from cnnlab.conv.standard import StandardConv2d


class Im2ColConv2d(StandardConv2d):
    """Ordinary convolution, the matrix product written out: filters times patches.

    Each patch becomes a column of in*kh*kw numbers, each filter a row; y = W X + b. The columns repeat every
    pixel kh*kw times, in memory too.

    Source: Chellapilla et al. 2006, High Performance Convolutional Neural Networks for Document Processing.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = Im2ColConv2d(1, 1, 2, bias=False)
    >>> conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv(torch.tensor([[[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]]])).detach()  # 1*1 + 4*1, 2*2 + 3*1
    tensor([[[[5., 7.]]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(padded(self, x), self.kernel_size, self.dilation, stride=self.stride)
        columns = columns.unflatten(-2, (self.groups, -1))  # (N, groups, in/groups*kh*kw, H'*W')
        filters = self.weight.flatten(1).unflatten(0, (self.groups, -1))
        y = (filters @ columns).flatten(-3, -2)  # (N, out, H'*W')
        if self.bias is not None:
            y = y + self.bias.to(y.dtype).unsqueeze(-1)
        return y.unflatten(-1, output_hw(self, (x.shape[-2], x.shape[-1])))
