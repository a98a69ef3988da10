"""Dense layers after the features, or the convolutions that they are when they slide over a larger image."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.model.stack import Factory, Stack, expanded, shape_after, widened


class SlidingLinear(nn.Linear):
    """Dense layer at every position of a map: the convolution whose kernel is as large as its input shape.

    Parameters, names and initial weights are nn.Linear's, so that either loads the other's checkpoint.

    Source: LeCun et al. 1998; Sermanet et al. 2013, arXiv:1312.6229; CS231n, "Converting FC layers to CONV".
    Shape: (N, C, H, W) -> (N, out, H - h + 1, W - w + 1) for the input shape (C, h, w).

    >>> dense = SlidingLinear((1, 1, 2), 1)
    >>> dense.weight.data, dense.bias.data = torch.tensor([[1.0, 10.0]]), torch.zeros(1)
    >>> dense(torch.tensor([[[[1.0, 2.0, 3.0]]]])).tolist()  # 1 + 20, 2 + 30
    [[[[21.0, 32.0]]]]
    """

    def __init__(self, input_shape: Sequence[int], out_features: int):
        super().__init__(math.prod(input_shape), out_features)
        self.input_shape = tuple(input_shape)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight.unflatten(1, self.input_shape), self.bias)


class DenseLayers(nn.Sequential):
    """Classifier [dense -> activation -> dropout]*k -> dense, flat or sliding.

    `width` multiplies the hidden layers. With `as_conv` the layers slide: one pass over a larger image gives
    the map of the scores of every window, from one image of the input shape to the next.

    Shape: (N, C, H, W) -> (N, classes); sliding over a larger map (N, classes, H', W').

    >>> net = DenseLayers((4, 2, 2), [8], 3, as_conv=True)
    >>> net(torch.zeros(5, 4, 2, 2)).shape, net(torch.zeros(5, 4, 6, 3)).shape
    (torch.Size([5, 3]), torch.Size([5, 3, 5, 2]))
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden: Sequence[int],
        classes: int,
        *,
        activation: Factory = nn.ReLU,
        width: float = 1.0,
        dropout: float = 0.0,
        as_conv: bool = False,
    ):
        def dense(out_features: int) -> nn.Linear:
            if as_conv:
                return SlidingLinear(shape, out_features)
            return nn.Linear(math.prod(shape), out_features)

        shape: Sequence[int] = tuple(input_shape)
        layers: list[nn.Module] = [nn.Identity() if as_conv else nn.Flatten()]  # the names stay the same
        for features in hidden:
            out_features = widened(features, width)
            layers += [dense(out_features), activation()]
            shape = expanded(out_features, layers[-1]), 1, 1
            if dropout:  # at 0 it would still draw a mask
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, dense(classes))
        with torch.no_grad():  # an activation may not take as many channels
            self.eval()(torch.zeros(1, *input_shape))
        self.train()

    def forward(self, input: Tensor) -> Tensor:
        scores = super().forward(input)
        return scores.flatten(1) if scores.shape[2:] == (1, 1) else scores


def check_slides(build: Callable[[], Stack], input_shape: Sequence[int]) -> None:
    """Refuse dense layers as convolutions over features whose map does not grow with the image."""
    channels, height, width = input_shape
    shapes = [shape_after(build, (channels, n * height, n * width)) for n in (1, 2)]
    if shapes[0] == shapes[1]:
        raise ValueError("dense_as_conv must be false with a pooling that gives one size for any, got true")
