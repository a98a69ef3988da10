import numpy as np
import pytest
import torch
from torch import nn

from cnnlab.monitor.filters import GAP, LINES, MOST_CHANNELS, MOST_FILTERS, TILE, filter_grid, filter_images

BLUE = np.round(np.array(LINES) * 255)


def tile(grid, row, column, side=TILE):
    top, left = (GAP + index * (side + GAP) for index in (row, column))
    return grid[top : top + side, left : left + side]


def test_a_coloured_filter_is_scaled_to_its_own_range_over_all_colours():
    weight = torch.zeros(2, 3, 1, 1)
    weight[0, :, 0, 0] = torch.tensor([-1.0, 0.0, 3.0])
    weight[1, :, 0, 0] = torch.tensor([100.0, 200.0, 100.0])
    grid = filter_grid(weight)
    assert grid.dtype == np.uint8
    assert grid.shape == (TILE + 2 * GAP, 2 * TILE + 3 * GAP, 3)
    assert (tile(grid, 0, 0) == [0, 64, 255]).all()  # 255 * (w + 1) / 4
    assert (tile(grid, 0, 1) == [0, 255, 0]).all()


def test_filters_fill_a_square_row_by_row_and_lines_fill_the_rest():
    weight = torch.zeros(5, 1, 2, 2)
    weight[:, 0, 0, 0] = 1.0
    grid = filter_grid(weight)
    assert grid.shape == (2 * TILE + 3 * GAP, 3 * TILE + 4 * GAP, 3)
    expected = np.kron([[255, 0], [0, 0]], np.ones((TILE // 2, TILE // 2)))[..., None]
    for index in range(5):
        assert (tile(grid, *divmod(index, 3)) == expected).all(), index
    assert (tile(grid, 1, 2) == BLUE).all()
    assert (grid[:GAP] == BLUE).all()
    assert (grid[:, -GAP:] == BLUE).all()


def test_filters_of_many_channels_have_a_row_each_and_every_tile_its_own_range():
    weight = torch.arange(2 * 4 * 2 * 2, dtype=torch.float32).view(2, 4, 2, 2) ** 2
    grid = filter_grid(weight)
    assert grid.shape == (2 * TILE + 3 * GAP, 4 * TILE + 5 * GAP, 3)
    for out, channel in np.ndindex(2, 4):
        w = weight[out, channel].numpy()
        expected = np.round(255 * (w - w.min()) / (w.max() - w.min()))
        seen = tile(grid, out, channel)[:: TILE // 2, :: TILE // 2]
        assert (seen == expected[..., None]).all(), (out, channel)


@pytest.mark.parametrize("value", [0.0, -3.5, float("nan"), float("inf"), float("-inf")])
def test_a_filter_without_contrast_is_mid_grey(value):
    assert (tile(filter_grid(torch.full((1, 1, 3, 3), value)), 0, 0, side=33) == 128).all()


@pytest.mark.parametrize("kernel", [(1, 1), (1, 7), (11, 3), (64, 64)])
def test_the_longer_side_of_a_filter_is_at_least_a_tile(kernel):
    height, width, _ = filter_grid(torch.randn(1, 3, *kernel)).shape
    assert TILE <= max(height, width) - 2 * GAP < TILE + max(kernel)
    assert (height - 2 * GAP) * kernel[1] == (width - 2 * GAP) * kernel[0]


def test_a_huge_layer_makes_a_picture_of_bounded_size():
    grid = filter_grid(torch.randn(300, 20, 1, 1))
    height, width = (n * (TILE + GAP) + GAP for n in (MOST_FILTERS, MOST_CHANNELS))
    assert grid.shape == (height, width, 3)


@pytest.mark.parametrize("shape", [(3, 3), (8, 3, 3), (0, 3, 3, 3), (1, 0, 3, 3)])
def test_a_weight_that_is_no_filters_is_refused(shape):
    with pytest.raises(ValueError, match=r"^weight must have shape \(out, in, kh, kw\), got \("):
        filter_grid(torch.zeros(shape))


def test_the_picture_is_of_the_first_convolution():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 5), nn.Conv2d(4, 8, 3))
    images = filter_images(net)
    assert list(images) == ["filters"]
    assert (images["filters"] == filter_grid(net[1].weight)).all()


def test_a_net_in_bfloat16_has_a_picture_and_one_without_convolutions_has_none():
    assert filter_images(nn.Conv2d(1, 2, 3).bfloat16())["filters"].dtype == np.uint8
    assert filter_images(nn.Linear(3, 3)) == {}
