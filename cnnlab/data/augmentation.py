"""Random changes to a batch of training images: a few batched operations, uint8 or float, on any device.

In eval mode nothing changes, as with dropout. Random numbers come from the global generator of the images'
device.
"""

import torch
import torch.nn.functional as F
from torch import nn

from cnnlab.allowed import number, whole


class Flip(nn.Module):
    """Each image mirrored left to right with probability p.

    Shape: (N, C, H, W) -> the same, in the same dtype.
    Raises: ValueError where p is not in 0..1.

    >>> Flip(p=1)(torch.tensor([[[[1, 2, 3]]]])).tolist()
    [[[[3, 2, 1]]]]
    """

    def __init__(self, *, p: float = 0.5) -> None:
        super().__init__()
        self.p = number("p", p, at_least=0, at_most=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return images
        columns = mirrored_columns(len(images), images.shape[3], self.p, images.device)
        return images.gather(3, columns[:, None, None].expand_as(images))


class CropFlip(nn.Module):
    """Each image padded with zeros, cropped to its size at random, and flipped with probability p.

    The (2*padding + 1)**2 positions of the crop are equally likely.

    Source: He et al. 2016, Deep Residual Learning, section 4.2 (after Lee et al. 2015).
    Shape: (N, C, H, W) -> the same, in the same dtype.
    Raises: ValueError where padding is not a whole number >= 0 or p not in 0..1.

    >>> CropFlip(padding=0, p=1)(torch.tensor([[[[1, 2, 3]]]])).tolist()
    [[[[3, 2, 1]]]]
    """

    def __init__(self, *, padding: int = 4, p: float = 0.5) -> None:
        super().__init__()
        self.padding = whole("padding", padding, at_least=0)
        self.p = number("p", p, at_least=0, at_most=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return images
        n, channels, height, width = images.shape
        side = 2 * self.padding
        top, left = torch.randint(side + 1, (2, n, 1), device=images.device)
        rows = top + torch.arange(height, device=images.device)  # (N, H)
        columns = left + mirrored_columns(n, width, self.p, images.device)  # (N, W)
        pixel = rows[:, :, None] * (width + side) + columns[:, None, :]  # (N, H, W), in the padded image
        padded = F.pad(images, [self.padding] * 4).flatten(2)  # (N, C, (H + side) * (W + side))
        index = pixel.flatten(1)[:, None].expand(-1, channels, -1)
        return padded.gather(2, index).view(n, channels, height, width)


def mirrored_columns(n: int, width: int, p: float, device: torch.device) -> torch.Tensor:
    """The columns of n images, 0..W-1, or with probability p W-1..0: (N, W)."""
    columns = torch.arange(width, device=device)
    flipped = torch.rand(n, 1, device=device) < p
    return torch.where(flipped, columns.flip(0), columns)
