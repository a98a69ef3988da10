import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.allowed import truth, whole
from cnnlab.model.stack import MAX_2X2, Factory, Stack, expanded, sized


class Residual(nn.Module):
    """act(branch(x) + shortcut(x)), branch = conv -> norm -> act -> conv -> norm.

    The shortcut takes every stride-th pixel, and as many channels as the branch has: missing ones are zeros,
    those that are too many (CReLU's negative phases) are left out. Without batch norm the branch is times a
    trained number that starts at `scale`.
    """

    def __init__(self, branch: Stack, activation: nn.Module, *, stride: int, scale: float):
        super().__init__()
        self.branch = nn.Sequential(*branch.layers)
        self.scale = None if branch.batch_norm else nn.Parameter(torch.tensor(scale))
        self.activation = activation
        self.stride, self.channels = stride, branch.channels

    def forward(self, input: Tensor) -> Tensor:
        branch = self.branch(input)
        if self.scale is not None:
            branch = branch * self.scale
        shortcut = input[:, :, :: self.stride, :: self.stride]
        missing = self.channels - input.shape[1]
        return self.activation(branch + F.pad(shortcut, (0, 0, 0, 0, 0, missing)))


class ResNet(nn.Module):
    """Residual net for small images: 6n + 2 layers in three stages.

    3x3 16 -> [residual block of two 3x3]*n with 16, with 32 (first /2), with 64 (first /2) filters ->
    global average -> dense. `width` multiplies all filters. Shortcuts have no parameters (option A): where
    the channels grow, the new ones are zero. It takes `pooling` as every model does, and uses none.
    Without `batch_norm` convolutions have biases, and each branch is multiplied by a trained number that
    starts at 1 / sqrt(3n), so that all branches together add no more than the input (SkipInit).

    Source: He et al. 2016, arXiv:1512.03385, 4.2; SkipInit: De & Smith 2020, arXiv:2002.10444.
    Differs: the variants' own initial weights, not He's.
    Shape: (N, C, H, W) -> (N, classes), any H and W.

    Raises: ValueError where depth is not 6n + 2.

    >>> sum(p.numel() for p in ResNet((3, 32, 32), classes=10).parameters())  # 267,696 + 1,376 in norms + 650
    269722
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Factory = nn.Conv2d,
        activation: Factory = nn.ReLU,
        pooling: Factory = MAX_2X2,
        width: float = 1.0,
        depth: int = 20,
        batch_norm: bool = True,
    ):
        super().__init__()
        truth("batch_norm", batch_norm)
        if (whole("depth", depth, at_least=8) - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110), got {depth}")
        blocks = (depth - 2) // 6

        def stack_on(channels: int) -> Stack:
            return Stack(channels, conv, activation, pooling, width=width, batch_norm=batch_norm)

        def build() -> Stack:
            stack = stack_on(input_shape[0])
            stack.conv(16, 3)
            for filters, first_stride in ((16, 1), (32, 2), (64, 2)):
                for stride in (first_stride, *[1] * (blocks - 1)):
                    branch = stack_on(stack.channels)
                    branch.conv(filters, 3, stride=stride)
                    branch.conv(filters, 3, activate=False)
                    last = activation()
                    block = Residual(branch, last, stride=stride, scale=1 / math.sqrt(3 * blocks))
                    stack.add(block, expanded(branch.channels, last))
            return stack

        self.features, (channels, _, _) = sized(build, input_shape)
        self.scores = nn.Linear(channels, classes)

    def forward(self, input: Tensor) -> Tensor:
        return self.scores(self.features(input).mean((2, 3)))
