"""Feature layers in the making: each fits the one before it, and a dry run gives all of them their sizes."""

import bisect
import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from cnnlab.allowed import finite, whole

Factory = Callable[..., nn.Module]
MAX_2X2 = functools.partial(nn.MaxPool2d, 2)
LARGEST = 2**12  # pixels a side: an image that no network needs


class Stack:
    """Convolutions, activations and poolings one after the other, each for the channels that come to it.

    `width` multiplies the filters. With `batch_norm` a norm, instead of a bias that its mean would subtract,
    follows every convolution.

    >>> stack = Stack(3, nn.Conv2d, nn.ReLU, MAX_2X2, width=0.5)
    >>> stack.conv(16, 5)
    >>> stack.conv(32, 3, stride=2)
    >>> stack.pool()
    >>> stack.layers[2], stack.channels
    (Conv2d(8, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)), 16)
    """

    def __init__(
        self,
        channels: int,
        conv: Factory,
        activation: Factory,
        pooling: Factory,
        *,
        width: float = 1.0,
        batch_norm: bool = False,
    ):
        self.channels = channels
        self.parts = conv, activation, pooling
        self.width, self.batch_norm = width, batch_norm
        self.layers: list[nn.Module] = []

    def conv(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: str = "same",
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        """A convolution, its norm and its activation.

        "same" gives an output for every stride-th pixel, "full" for every position that sees any pixel.
        """
        conv, activation, _ = self.parts
        out = widened(filters, self.width)
        arguments: dict[str, object] = {"padding": padding}
        if stride != 1:
            arguments["stride"] = stride
        if padding == "full" or (padding == "same" and stride != 1):  # nn.Conv2d knows the one of stride 1
            sizes = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
            spans = [
                d * (size - 1) for d, size in zip(self.dilation(filters, kernel_size), sizes, strict=True)
            ]
            arguments["padding"] = tuple(spans if padding == "full" else [span // 2 for span in spans])
        groups = math.gcd(groups, self.channels, out)
        if groups != 1:
            arguments["groups"] = groups
        if self.batch_norm:
            arguments["bias"] = False
        self.add(conv(self.channels, out, kernel_size, **arguments), out)
        if self.batch_norm:
            self.add(nn.BatchNorm2d(out), out)
        if activate:
            self.extend(activation())

    def dilation(self, filters: int, kernel_size: int | tuple[int, int]) -> tuple[int, int]:
        """The dilation that the convolution brings of its own."""
        with torch.device("meta"):  # neither memory nor random numbers
            probe = self.parts[0](self.channels, widened(filters, self.width), kernel_size)
        return getattr(probe, "dilation", (1, 1))

    def pool(self) -> None:
        self.extend(self.parts[2]())

    def drop(self, p: float) -> None:
        if p:  # at 0 it would still draw a mask
            self.add(nn.Dropout(p), self.channels)

    def extend(self, layer: nn.Module) -> None:
        """Add an activation or a pooling, which may have another number of channels."""
        self.add(layer, expanded(self.channels, layer))

    def add(self, layer: nn.Module, channels: int) -> None:
        self.layers.append(layer)
        self.channels = channels


def widened(channels: int, width: float) -> int:
    """Channels times width, at least one.

    >>> widened(96, 0.5), widened(1, 0.1)
    (48, 1)
    """
    return max(1, round(channels * finite("width", width, above=0)))


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    if not isinstance(sizes, list | tuple):
        raise ValueError(f"{name} must be a list of whole numbers >= 1, got {sizes!r}")
    for size in sizes:
        whole(name, size, at_least=1)


def expanded(channels: int, layer: nn.Module) -> int:
    """Channels after an activation or a pooling; where it takes no such number the dry run lets it say so."""
    return max(1, round(channels * getattr(layer, "expansion", 1)))


@torch.no_grad()
def sized(
    build: Callable[[], Stack], input_shape: Sequence[int], knobs: str = ""
) -> tuple[nn.Sequential, tuple[int, ...]]:
    """The layers as a module and the shape (C, H, W) of what they make of an image of a shape.

    The one dry run gives lazy layers their sizes; in eval mode, so that no statistics are touched.

    Raises: ValueError where the image is too small, with the smallest there is and the `knobs` to blame.

    >>> def build():
    ...     stack = Stack(1, nn.Conv2d, nn.ReLU, MAX_2X2)
    ...     stack.conv(4, 3, padding="valid")
    ...     stack.pool()
    ...     return stack
    >>> sized(build, (1, 9, 7))[1]
    (4, 3, 2)
    >>> sized(build, (1, 9, 3))
    Traceback (most recent call last):
    ValueError: input_shape must be 4x4 or more, got 9x3
    """
    channels, height, width = input_shape
    features = nn.Sequential(*build().layers).eval()
    try:
        output = features(torch.zeros(1, *input_shape))
    except RuntimeError as error:
        side = None if isinstance(error, NotImplementedError) else smallest_side(build, channels)
        if side is None or min(height, width) >= side:
            raise  # it was not the size
    else:
        if output.numel():
            return features.train(), tuple(output.shape[1:])
        side = smallest_side(build, channels)
    raise ValueError(f"input_shape must be {side}x{side} or more{knobs}, got {height}x{width}")


def smallest_side(build: Callable[[], Stack], channels: int) -> int | None:
    """Side of the smallest square image that the layers take, None where they take none."""

    def fits(side: int) -> bool:
        return shape_after(build, (channels, side, side)) is not None

    return bisect.bisect_left(range(LARGEST), True, lo=1, key=fits) if fits(LARGEST) else None


@torch.no_grad()
def shape_after(build: Callable[[], Stack], input_shape: Sequence[int]) -> tuple[int, ...] | None:
    """What `sized` would find, None for too small an image; on the meta device, where nothing is computed."""
    with torch.device("meta"):
        features, image = nn.Sequential(*build().layers).eval(), torch.zeros(1, *input_shape)
        try:
            output = features(image)
        except RuntimeError:
            return None
    return tuple(output.shape[1:]) if output.numel() else None
