from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cnnlab.allowed import number, truth, whole


class ConvNet(nn.Module):
    """Textbook net: [[conv -> act]*n -> pool?]*m -> [dense -> act]*k -> dense.

    m = len(filters) blocks of n = `convs` convolutions with filters[i] filters each, every block halved by a
    2x2 max pooling if `pool`; k = len(dense) hidden layers; the last dense layer gives the class scores.
    `batch_norm` stands between a convolution (then without bias) and its activation; `dropout` before every
    dense layer. With filters=[] and dense=[] a linear classifier is left.

    Source: Karpathy et al., CS231n notes, "Layer Patterns".
    Shape: (N, C, H, W) -> (N, classes); with pooling H and W must be at least 2^m.

    Raises: ValueError where a knob is out of range or the input too small for the pools.

    >>> net = ConvNet((1, 8, 8), classes=10)
    >>> net(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    >>> sum(p.numel() for p in net.parameters())  # 320 + 9248 + 18496 + 36928 + (2 * 2 * 64 + 1) * 10
    67562
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        *,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        activation: Callable[[], nn.Module] = nn.ReLU,
        filters: Sequence[int] = (32, 64),
        convs: int = 2,
        kernel_size: int = 3,
        pool: bool = True,
        dense: Sequence[int] = (),
        batch_norm: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        whole("convs", convs, at_least=1)
        whole("kernel_size", kernel_size, at_least=1)
        truth("pool", pool)
        truth("batch_norm", batch_norm)
        number("dropout", dropout, at_least=0)
        check_widths("filters", filters)
        check_widths("dense", dense)
        channels, height, width = input_shape
        most = min(height, width).bit_length() - 1  # how often it can be halved
        if pool and len(filters) > most:
            raise ValueError(
                f"filters must name at most {most} blocks with a 2x2 pool each for {height}x{width} images, "
                f"got {list(filters)}"
            )
        # Batch norm subtracts the mean, so a bias before it would be a dead parameter.
        bias = {"bias": False} if batch_norm else {}
        features: list[nn.Module] = []
        for out_channels in filters:
            for _ in range(convs):
                features.append(conv(channels, out_channels, kernel_size, padding="same", **bias))
                if batch_norm:
                    features.append(nn.BatchNorm2d(out_channels))
                features.append(activation())
                channels = round(out_channels * getattr(features[-1], "expansion", 1))
            if pool:
                features.append(nn.MaxPool2d(2))
        scores: list[nn.Module] = []
        drop = [nn.Dropout(dropout)] if dropout else []  # at 0 it would still draw a mask
        for out_features in dense:
            scores += [*drop, nn.LazyLinear(out_features), activation()]
        scores += [*drop, nn.LazyLinear(classes)]
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Flatten(), *scores)
        with torch.no_grad():  # gives lazy layers their sizes; eval, so that no statistics are touched
            self.eval()(torch.zeros(1, *input_shape))
        self.train()

    def forward(self, input: Tensor) -> Tensor:
        return self.classifier(self.features(input))


def check_widths(name: str, widths: Sequence[int]) -> None:
    if not isinstance(widths, list | tuple):
        raise ValueError(f"{name} must be a list of whole numbers >= 1, got {widths!r}")
    for width in widths:
        whole(name, width, at_least=1)
