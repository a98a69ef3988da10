"""From pixels 0..255 to what the network sees; part of the module, so every checkpoint holds it.

`fit(images)` takes the training part alone, uint8 (N, C, H, W), and returns the module. Statistics are exact:
they come from sums of whole numbers. Before `fit`, or a trained state_dict, a module gives nan.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

CHUNK = 2**26  # bytes of images that are counted at a time


def chunks(images: torch.Tensor) -> Iterable[torch.Tensor]:
    """Images some at a time: there may be more than fit into memory."""
    return images.split(max(1, CHUNK // math.prod(images.shape[1:])))


def extremes(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest value and the largest."""
    lows, highs = zip(*(chunk.aminmax() for chunk in chunks(images)), strict=True)
    return torch.stack(lows).min(), torch.stack(highs).max()


def histogram(images: torch.Tensor) -> torch.Tensor:
    """How often each value occurs in each channel: uint8 (N, C, H, W) -> int64 (C, 256)."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64, device=images.device)
    for chunk in chunks(images):
        for channel, count in enumerate(counts):
            count += chunk[:, channel].flatten().bincount(minlength=256)
    return counts.cpu()


def width(images: torch.Tensor) -> torch.Tensor:
    """The largest value less the smallest; 1 where all are equal."""
    low, high = extremes(images)
    return (high - low).clamp(min=1)


class NoPreprocessing(nn.Module):
    """Pixels as they are, cast to float32.

    Shape: (N, C, H, W) any dtype -> the same in float32.

    >>> NoPreprocessing()(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    tensor([[[[  0., 255.]]]])
    """

    def fit(self, images: torch.Tensor) -> "NoPreprocessing":
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


class UnitRange(nn.Module):
    """Pixels scaled to 0..1 by the smallest and largest value of the training images.

    (x - low) / (high - low), over all channels together: x / 255 on most data, x / 16 on digits. A constant
    data set becomes 0.

    Shape: (N, C, H, W) any dtype -> the same in float32.

    >>> images = torch.tensor([[[[2, 4, 10]]]], dtype=torch.uint8)
    >>> UnitRange().fit(images)(images)
    tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """

    low: torch.Tensor
    width: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(torch.nan))
        self.register_buffer("width", torch.tensor(torch.nan))

    def fit(self, images: torch.Tensor) -> "UnitRange":
        low, high = extremes(images)
        self.low.fill_(low)
        self.width.fill_((high - low).clamp(min=1))
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().sub(self.low).div(self.width)


class Standardize(nn.Module):
    """Pixels minus the mean over the standard deviation of their channel in the training images.

    (x - mean_c) / std_c, std over all N*H*W values (not N*H*W - 1); a constant channel becomes 0.

    Source: LeCun et al. 1998, Efficient BackProp, section 4.3.
    Shape: (N, C, H, W) any dtype -> the same in float32.

    >>> images = torch.tensor([[[[0, 2]], [[7, 7]]]], dtype=torch.uint8)  # mean 1, std 1; and a constant
    >>> Standardize().fit(images)(images).tolist()
    [[[[-1.0, 1.0]], [[0.0, 0.0]]]]
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1), torch.nan))  # (C, 1, 1) once C is known
        self.register_buffer("std", torch.full((1, 1, 1), torch.nan))
        self.register_load_state_dict_pre_hook(allocate)

    def fit(self, images: torch.Tensor) -> "Standardize":
        counts = histogram(images).double()  # (C, 256); exact below 2**53
        value = torch.arange(256, dtype=torch.float64)
        total = counts.sum(1)
        mean = counts @ value / total
        variance = (counts * (value - mean[:, None]).square()).sum(1) / total
        std = torch.where(variance > 0, variance.sqrt(), 1.0)
        self.mean, self.std = (s.float().view(-1, 1, 1).to(self.mean.device) for s in (mean, std))
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().sub(self.mean).div(self.std)


class MeanImage(nn.Module):
    """Pixels minus the mean training image, on the scale of unit_range.

    (x - mean) / (high - low), with a mean of its own for each pixel of each channel.

    Source: Krizhevsky et al. 2012 (AlexNet); CS231n, "Data preprocessing".
    Differs: theirs stay on the scale 0..255, for which no default learning rate here is meant.
    Shape: (N, C, H, W) any dtype, all of the training images' shape -> the same in float32.
    Raises: ValueError for images of another shape.

    >>> images = torch.tensor([[[[0, 4]]], [[[2, 10]]]], dtype=torch.uint8)  # mean 1 and 7
    >>> MeanImage().fit(images)(images).flatten(1)
    tensor([[-0.1000, -0.3000],
            [ 0.1000,  0.3000]])
    """

    mean: torch.Tensor
    width: torch.Tensor
    over: tuple[int, ...] = (0,)  # dimensions that share a mean

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1), torch.nan))
        self.register_buffer("width", torch.tensor(torch.nan))
        self.register_load_state_dict_pre_hook(allocate)

    def fit(self, images: torch.Tensor) -> "MeanImage":
        sums = (chunk.sum(self.over, keepdim=True, dtype=torch.int64)[0] for chunk in chunks(images))
        total = functools.reduce(torch.add, sums)
        self.mean = (total.double() / (math.prod(images.shape) // total.numel())).float().to(self.mean.device)
        self.width.fill_(width(images))
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        check_shape(images, self.mean)
        return images.float().sub(self.mean).div(self.width)


class ChannelMean(MeanImage):
    """Pixels minus the mean of their channel in the training images, on the scale of unit_range.

    (x - mean_c) / (high - low).

    Source: Simonyan & Zisserman 2015 (VGG), arXiv:1409.1556; CS231n, "Data preprocessing".
    Differs: theirs stay on the scale 0..255, for which no default learning rate here is meant.
    Shape: (N, C, H, W) any dtype, H and W may differ from the training images' -> the same in float32.

    >>> images = torch.tensor([[[[0, 4], [2, 10]]]], dtype=torch.uint8)  # mean 4
    >>> ChannelMean().fit(images)(images).flatten(1)
    tensor([[-0.4000,  0.0000, -0.2000,  0.6000]])
    """

    over = (0, 2, 3)


def check_shape(images: torch.Tensor, mean: torch.Tensor) -> None:
    """Refuse images that have not the shape of the mean image; one value a channel fits any size."""
    if mean.shape[1:] != (1, 1) and images.shape[1:] != mean.shape:
        raise ValueError(
            f"images must have the shape of the training images, {tuple(mean.shape)}, got "
            f"{tuple(images.shape[1:])}: with channel_mean or standardize any height and width"
        )


def allocate(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a module's buffers the shapes of what is about to be loaded into them."""
    for name, buffer in module.named_buffers(recurse=False):
        if (saved := state_dict.get(prefix + name)) is not None:
            setattr(module, name, buffer.new_empty(saved.shape))
