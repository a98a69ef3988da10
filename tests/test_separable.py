"""Chains of thin convolutions are one convolution, cost what the textbooks say and start alike."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cnnlab
from cnnlab.conv.flattened import FlattenedConv2d
from cnnlab.conv.separable import DepthwiseSeparableConv2d, SpatiallySeparableConv2d

WORDS = ("depthwise_separable", "pointwise_grouped", "spatially_separable", "flattened")
GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "padding": (1, 2), "stride": (2, 3), "groups": 2},
    {"kernel_size": (2, 3), "padding": "valid", "dilation": (3, 1)},
    {"kernel_size": (1, 5), "padding": (2, 1), "stride": 2, "padding_mode": "replicate"},
    {"kernel_size": (4, 1), "padding": (3, 2), "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "padding_mode": "circular", "bias": False},
    {"kernel_size": 1, "stride": 2, "padding": 1, "groups": 2},
]


def loops(conv: Any) -> Tensor:
    """The kernel by its formula, number by number."""
    kernel = torch.zeros(conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size).double()
    factors = [factor.weight for factor in conv.factors]
    filters, channels = conv.out_channels // conv.groups, kernel.shape[1]
    for o, c, i, j in itertools.product(*map(range, kernel.shape)):
        group = o // filters
        if len(factors) == 1:
            kernel[o, c, i, j] = factors[0][o, c, i, j]
        elif isinstance(conv, DepthwiseSeparableConv2d):
            kernel[o, c, i, j] = factors[0][group * channels + c, 0, i, j] * factors[1][o, c, 0, 0]
        elif isinstance(conv, FlattenedConv2d):
            kernel[o, c, i, j] = factors[0][o, c, 0, 0] * factors[1][o, 0, i, 0] * factors[2][o, 0, 0, j]
        else:
            between = factors[1].shape[1]
            kernel[o, c, i, j] = sum(
                factors[0][group * between + m, c, i, 0] * factors[1][o, m, 0, j] for m in range(between)
            )
    return kernel


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_the_chain_is_the_convolution_with_the_composed_kernel(word: str, geometry: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv = cnnlab.create("conv", word, 4, 6, **geometry).double()
    stock = nn.Conv2d(4, 6, **{**geometry, "groups": conv.groups}).double()
    stock.load_state_dict({"weight": loops(conv)} | ({} if conv.bias is None else {"bias": conv.bias}))
    torch.testing.assert_close(conv.weight, stock.weight)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(conv(x), stock(x))


@pytest.mark.parametrize("word", WORDS)
def test_it_starts_with_the_variance_of_conv2d(word: str) -> None:
    torch.manual_seed(0)
    conv, stock = cnnlab.create("conv", word, 64, 128, 5), nn.Conv2d(64, 128, 5)
    fan_in = 64 // conv.groups * 25
    assert math.isclose(conv.weight.std().item() * math.sqrt(3 * fan_in), 1, rel_tol=0.1)
    assert math.isclose(stock.weight.std().item() * math.sqrt(3 * 64 * 25), 1, rel_tol=0.1)
    assert 0.9 / math.sqrt(fan_in) < conv.bias.abs().max() <= 1 / math.sqrt(fan_in)


@pytest.mark.parametrize("word", WORDS)
def test_a_reset_draws_every_factor_anew(word: str) -> None:
    torch.manual_seed(0)
    conv = cnnlab.create("conv", word, 4, 6, 3)
    before = {name: p.detach().clone() for name, p in conv.named_parameters()}
    conv.reset_parameters()
    assert all((p != before[name]).all() for name, p in conv.named_parameters())
    torch.manual_seed(0)
    again = cnnlab.create("conv", word, 4, 6, 3)
    assert all(torch.equal(p, before[name]) for name, p in again.named_parameters())


@pytest.mark.parametrize("word", WORDS)
def test_where_there_is_nothing_to_separate_one_factor_is_left(word: str) -> None:
    conv = cnnlab.create("conv", word, 4, 8, 1)
    assert [tuple(factor.weight.shape) for factor in conv.factors] == [(8, 4 // conv.groups, 1, 1)]
    assert sum(p.numel() for p in conv.parameters()) == 8 * 4 // conv.groups + 8


def test_the_weight_is_composed_in_float32_under_autocast() -> None:
    conv = SpatiallySeparableConv2d(8, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv.weight, conv.weight.float())
        inside = conv.weight
    assert torch.equal(inside, conv.weight)


@pytest.mark.parametrize(("filters", "k"), [(128, 3), (1000, 5), (1, 7)])
def test_depthwise_separable_costs_one_over_filters_plus_one_over_k_squared(filters: int, k: int) -> None:
    conv, size = DepthwiseSeparableConv2d(64, filters, k), 20
    positions = (size - k + 1) ** 2
    assert conv.macs((size, size)) == positions * 64 * (k * k + filters)
    ratio = conv.macs((size, size)) / (positions * 64 * filters * k * k)
    assert math.isclose(ratio, 1 / filters + 1 / k**2)


@pytest.mark.parametrize(("size", "m"), [(9, 3), (100, 5)])
def test_spatially_separable_costs_what_the_textbook_says(size: int, m: int) -> None:
    """One channel, no padding: (N-m+1) N m + (N-m+1)^2 m multiplications, not (N-m+1)^2 m^2."""
    conv, left = SpatiallySeparableConv2d(1, 1, m, bias=False), size - m + 1
    assert sum(p.numel() for p in conv.parameters()) == 2 * m
    assert conv.macs((size, size)) == left * size * m + left**2 * m
    ratio = conv.macs((size, size)) / (left**2 * m**2)
    assert math.isclose(ratio, 1 / m + 1 / (m * (1 - (m - 1) / size)))


@pytest.mark.parametrize("channels", [(64, 64), (64, 128), (128, 32), (3, 48)])
@pytest.mark.parametrize("k", [3, 7])
def test_spatially_separable_costs_two_over_k_for_any_channels(channels: tuple[int, int], k: int) -> None:
    macs = SpatiallySeparableConv2d(*channels, k, padding="same").macs((32, 32))
    stock = math.prod(channels) * k * k * 32 * 32
    assert 2 / k <= macs / stock < 2 / k * (1 + 1 / min(channels))  # the channels between are rounded up


def test_spatially_separable_can_be_any_kernel_of_rank_1() -> None:
    """A Sobel filter, [1 2 1]^T [1 0 -1]."""
    conv = SpatiallySeparableConv2d(1, 1, 3, bias=False)
    conv.factors[0].weight.data = torch.tensor([1.0, 2.0, 1.0]).view(1, 1, 3, 1)
    conv.factors[1].weight.data = torch.tensor([1.0, 0.0, -1.0]).view(1, 1, 1, 3)
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(conv(x), F.conv2d(x, sobel[None, None]))
