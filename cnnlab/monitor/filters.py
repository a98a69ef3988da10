"""Convolution filters as a picture: what has the first layer learnt to see?"""

import math

import numpy as np
import torch
from torch import Tensor, nn

TILE, GAP = 32, 2  # pixels: least side of a filter, width of the lines between
LINES = (0.1, 0.2, 0.5)  # blue: no filter of a grey picture has it
MOST_FILTERS, MOST_CHANNELS = 256, 16  # drawn; a picture is for looking at


@torch.no_grad()
def filter_grid(weight: Tensor, columns: int | None = None) -> np.ndarray:
    """Filters tiled as an image: in colour for three input channels, else a grey tile for each channel.

    Each filter is scaled to its own range, darkest to brightest; a constant one is mid-grey. Filters of one
    or three channels fill a square, left to right, or `columns`; those of more channels have a row each.

    Differs: at most 256 filters and 16 channels are drawn; nan and inf count as 0.
    Shape: (out, in, kh, kw) -> (height, width, 3), uint8.
    Raises: ValueError if the weight hasn't four dimensions or has no element.

    >>> grid = filter_grid(torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]]))  # one filter, 2 x 2
    >>> grid.shape  # an element is 16 x 16, a line 2 wide
    (36, 36, 3)
    >>> grid[[2, 2, 18, 18], [2, 18, 2, 18], 0]  # 255 * w / 4
    array([  0,  64, 128, 255], dtype=uint8)
    """
    if weight.dim() != 4 or not weight.numel():
        raise ValueError(f"weight must have shape (out, in, kh, kw), got {tuple(weight.shape)}")
    weight = weight.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0)[:MOST_FILTERS]
    if weight.shape[1] == 3:
        tiles = weight  # (tiles, 3, kh, kw)
        columns = columns or math.ceil(math.sqrt(len(tiles)))
    else:
        channels = weight[:, :MOST_CHANNELS]
        tiles = channels.reshape(-1, 1, *weight.shape[2:]).expand(-1, 3, -1, -1)
        square = math.ceil(math.sqrt(len(tiles)))
        columns = channels.shape[1] if channels.shape[1] > 1 else columns or square
    low, high = tiles.amin((1, 2, 3), keepdim=True), tiles.amax((1, 2, 3), keepdim=True)
    tiles = torch.where(high > low, (tiles - low) / (high - low), 0.5)
    return tiled(tiles, columns)


def tiled(tiles: Tensor, columns: int, least_side: int = TILE) -> np.ndarray:
    """Tiles of 0..1 as an image, left to right, each pixel as large as the least side asks for.

    Shape: (tiles, 1 or 3, h, w) -> (height, width, 3), uint8.
    """
    zoom = math.ceil(least_side / max(tiles.shape[2:]))
    tiles = tiles.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    rows = math.ceil(len(tiles) / columns)
    height, width = tiles.shape[2] + GAP, tiles.shape[3] + GAP
    grid = torch.tensor(LINES).expand(rows * height + GAP, columns * width + GAP, 3).clone()
    for index, tile in enumerate(tiles):
        top, left = index // columns * height + GAP, index % columns * width + GAP
        grid[top : top + tile.shape[1], left : left + tile.shape[2]] = tile.permute(1, 2, 0)
    return (grid * 255).round().byte().numpy()


def filter_images(net: nn.Module) -> dict[str, np.ndarray]:
    """The filters of a net's first convolution as `filters`; nothing where it has none of that shape."""
    from cnnlab.conv import layers

    weights = (getattr(layer, "weight", None) for layer in layers(net).values())
    first = next((weight for weight in weights if isinstance(weight, Tensor) and weight.dim() == 4), None)
    return {} if first is None else {"filters": filter_grid(first)}
