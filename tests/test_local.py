"""Unshared weights against a convolution for each position, and what holds between the kinds of sharing."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.geometry import output_hw, padded
from cnnlab.conv.local import LocallyConnectedConv2d, TiledConv2d
from tests.conv_case import GEOMETRIES

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

SIZE = (11, 10)


def arguments(geometry: str) -> dict:
    return {"in_channels": 4, "out_channels": 6, **GEOMETRIES[geometry]}


def image(channels: int = 4, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def as_conv2d(kernels: Tensor) -> Tensor:
    """(H', W', kh, kw, in, out) -> (H', W', out, in, kh, kw)."""
    return kernels.permute(0, 1, 5, 4, 2, 3)


def position_by_position(conv: nn.Conv2d, x: Tensor, kernels: Tensor) -> Tensor:
    """A whole convolution with each kernel, of which one position is kept."""
    height, width = output_hw(conv, x.shape[-2:])
    y = torch.empty(len(x), conv.out_channels, height, width, dtype=x.dtype)
    for row in range(height):
        for column in range(width):
            kernel = kernels[row % len(kernels), column % kernels.shape[1]]
            everywhere = F.conv2d(
                padded(conv, x), kernel, conv.bias, conv.stride, 0, conv.dilation, conv.groups
            )
            y[..., row, column] = everywhere[..., row, column]
    return y


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_position_has_a_kernel_of_its_own(geometry: str) -> None:
    conv = LocallyConnectedConv2d(**arguments(geometry)).double()
    x = image(conv.in_channels)
    y = conv(x)
    expected = position_by_position(conv, x, as_conv2d(conv.weight))
    assert conv.weight.numel() == y[0].numel() * conv.in_channels // conv.groups * (
        conv.kernel_size[0] * conv.kernel_size[1]
    )
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("tile", [2, 3])
def test_tiles_repeat_their_kernels(geometry: str, tile: int) -> None:
    conv = TiledConv2d(**arguments(geometry), tile=tile).double()
    x = image(conv.in_channels)
    torch.testing.assert_close(conv(x), position_by_position(conv, x, conv.weight))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_one_kernel_everywhere_is_a_convolution(geometry: str) -> None:
    local = LocallyConnectedConv2d(**arguments(geometry)).double()
    tiled = TiledConv2d(**arguments(geometry)).double()
    stock = nn.Conv2d(**arguments(geometry)).double()
    x = image(stock.in_channels)
    local(x)
    as_conv2d(local.weight.data).copy_(stock.weight.data)
    tiled.weight.data.copy_(stock.weight.data)
    for conv in (local, tiled):
        if stock.bias is not None:
            conv.bias.data.copy_(stock.bias.data)
        torch.testing.assert_close(conv(x), stock(x))


def test_a_tile_of_one_is_nn_conv2d_to_the_bit() -> None:
    torch.manual_seed(0)
    tiled = TiledConv2d(4, 6, 3, tile=1)
    torch.manual_seed(0)
    stock = nn.Conv2d(4, 6, 3)
    x = image().float()
    assert tiled.is_convolution and tiled.equivariant
    assert torch.equal(tiled.weight, stock.weight) and torch.equal(tiled(x), stock(x))


@pytest.mark.parametrize("tile", [11, 13])
@pytest.mark.parametrize("geometry", ["k3", "groups", "replicate"])
def test_a_tile_as_large_as_the_output_is_locally_connected(geometry: str, tile: int) -> None:
    local, tiled = (
        LocallyConnectedConv2d(**arguments(geometry)).double(),
        TiledConv2d(**arguments(geometry), tile=tile).double(),
    )
    x = image()
    height, width = local(x).shape[-2:]
    as_conv2d(local.weight.data).copy_(tiled.weight.data[:height, :width])
    local.bias.data.copy_(tiled.bias.data)
    torch.testing.assert_close(tiled(x), local(x))
    tiled(x).square().sum().backward()
    used = tiled.weight.grad.flatten(2).abs().sum(2) > 0
    assert used[:height, :width].all() and used.sum() == height * width


@pytest.mark.parametrize("kind", [LocallyConnectedConv2d, TiledConv2d])
def test_each_kernel_is_drawn_as_nn_conv2d_draws_its_one(kind: type[nn.Conv2d]) -> None:
    torch.manual_seed(0)
    conv = kind(8, 16, (3, 5), groups=2, padding="same")
    conv(torch.zeros(1, 8, 7, 6))
    bound = 60**-0.5  # fan_in 8 / 2 * 3 * 5
    for parameter in conv.parameters():
        assert 0.8 * bound < parameter.abs().max().item() <= bound
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=0.02 * bound)


@pytest.mark.parametrize("kind", [LocallyConnectedConv2d, TiledConv2d])
def test_the_output_is_laid_out_as_the_input(kind: type[nn.Conv2d]) -> None:
    conv, x = kind(4, 6, 3).double(), image()
    assert conv(x).is_contiguous()
    assert conv(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [LocallyConnectedConv2d, TiledConv2d])
def test_an_image_may_come_without_a_batch(kind: type[nn.Conv2d]) -> None:
    conv, x = kind(4, 6, 3).double(), image()
    assert torch.equal(conv(x[0]), conv(x[:1])[0])


@pytest.mark.parametrize("prepare", [deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))])
def test_one_without_size_is_copied_cast_and_sized_later(prepare) -> None:
    conv = prepare(LocallyConnectedConv2d(4, 6, 3)).double()
    assert conv.macs(SIZE) == 9 * 8 * 6 * 4 * 9
    assert conv(image()).dtype == torch.float64
    assert conv.weight.shape == (9, 8, 3, 3, 4, 6)
    copy = prepare(conv).to(memory_format=torch.channels_last)
    assert torch.equal(copy(image()), conv(image()))


def test_one_without_size_takes_it_from_a_state_dict() -> None:
    torch.manual_seed(0)
    first, second = LocallyConnectedConv2d(4, 6, 3), LocallyConnectedConv2d(4, 6, 3)
    x = image().float()
    y = first(x)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), y)
    other = LocallyConnectedConv2d(4, 6, 3)
    other(x[..., 1:])
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        other.load_state_dict(first.state_dict())


def test_an_image_of_another_size_is_refused() -> None:
    conv = LocallyConnectedConv2d(4, 6, 3)
    conv(torch.zeros(1, 4, 8, 7))
    with pytest.raises(ValueError, match=r"6x5 output positions.*got 8x5 from an image of 10x7"):
        conv(torch.zeros(1, 4, 10, 7))


@pytest.mark.parametrize("kind", [LocallyConnectedConv2d, TiledConv2d])
def test_an_image_smaller_than_the_kernel_is_refused(kind: type[nn.Conv2d]) -> None:
    with pytest.raises(ValueError, match=r"kernel_size must fit.*got \(5, 5\) for \(4, 6\)"):
        kind(4, 6, 5)(torch.zeros(1, 4, 4, 6))


@pytest.mark.parametrize("tile", [0, -1, 2.0, True])
def test_a_tile_that_is_no_whole_number_above_0_is_refused(tile) -> None:
    with pytest.raises(ValueError, match="tile must be a whole number >= 1"):
        TiledConv2d(4, 6, 3, tile=tile)
