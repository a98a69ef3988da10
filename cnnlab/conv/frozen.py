"""Filters that are drawn and never trained."""

from cnnlab.conv.standard import StandardConv2d


class RandomConv2d(StandardConv2d):
    """Convolution with random filters that stay as they were drawn.

    y = w . x + b, w and b as nn.Conv2d or an `initializer` draws them, without gradients: what follows is
    trained alone.  Frozen random filters followed by pooling do surprisingly well, and how well tells
    architectures apart before any training.

    Source: Jarrett et al. 2009, What is the best multi-stage architecture for object recognition?; Saxe et
    al. 2011, On random weights and unsupervised feature learning.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.

    >>> import torch
    >>> conv = RandomConv2d(1, 1, 1)
    >>> [parameter.requires_grad for parameter in conv.parameters()]
    [False, False]
    >>> conv.load_state_dict({"weight": torch.full((1, 1, 1, 1), 2.0), "bias": torch.ones(1)})
    <All keys matched successfully>
    >>> conv(torch.tensor([[[[3.0]]]]))  # 2 * 3 + 1
    tensor([[[[7.]]]])
    """

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.requires_grad_(False)  # nn.Conv2d's constructor ends with this method
