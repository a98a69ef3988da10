from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cnnlab.conv.standard import StandardConv2d
from cnnlab.initializer import glorot_uniform_


class Singla(nn.Module):
    """VGG-like net of Singla's orthogonal convolutions: four conv, two dense layers.

    5x5 same 32 -> 3x3 valid 32 -> pool -> 3x3 same 64 -> 3x3 valid 64 -> pool -> dense 512 -> dense, with an
    activation after every layer but the last and 2x2 max pooling.

    Source: Singla 2017, github.com/singlasahil14/orthogonal-convolution.
    Initial weights: Glorot's uniform rule over filter and bias together, as there, for the dense layers and
        the convolutions that let themselves be initialised (`initialize`); other variants keep their own.
    Shape: (N, C, H, W) -> (N, classes), H and W at least 10; 3x32x32 gives 64 maps of 6x6, 2304 features.

    Raises: ValueError for an input below 10x10.

    >>> net = Singla((3, 32, 32), classes=10)
    >>> [sum(p.numel() for p in layer.parameters()) for layer in net.features if hasattr(layer, "weight")]
    [2432, 9248, 18496, 36928]
    >>> [sum(p.numel() for p in layer.parameters()) for layer in net.classifier if hasattr(layer, "weight")]
    [1180160, 5130]
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Callable[..., nn.Module] = StandardConv2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        super().__init__()
        channels, height, width = input_shape
        if min(height, width) < 10:
            raise ValueError(f"input_shape must be 10x10 or more, got {height}x{width}")
        features: list[nn.Module] = []
        for out_channels, first_kernel in ((32, 5), (64, 3)):
            for kernel_size, padding in ((first_kernel, "same"), (3, "valid")):
                features += [conv(channels, out_channels, kernel_size, padding=padding), activation()]
                channels = round(out_channels * getattr(features[-1], "expansion", 1))
            features.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(512), activation(), nn.LazyLinear(classes)
        )
        with torch.no_grad():  # gives lazy layers their sizes; eval, so that no statistics are touched
            self.eval()(torch.zeros(1, *input_shape))
        self.train()
        for layer in features:
            if hasattr(layer, "initialize"):
                layer.initialize(glorot_uniform_)  # type: ignore[operator]
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                glorot_uniform_(layer.weight, layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))
