"""The operator norm against the largest singular value of the dense matrix."""

import math

import pytest
import torch
from torch import nn

from cnnlab.conv.cayley import CayleyConv2d
from cnnlab.conv.lipschitz import operator_norm


def dense_norm(conv: nn.Conv2d, *shape: int) -> float:
    units = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        columns = conv.double()(units) - conv(torch.zeros_like(units[:1]))
    return torch.linalg.matrix_norm(columns.flatten(1), 2).item()


@pytest.mark.parametrize("hw", [(1, 1), (2, 1), (7, 8), (12, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_the_largest_singular_value_of_the_matrix(hw: tuple[int, int], stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, stride, padding=1)
    assert operator_norm(conv, hw) == pytest.approx(dense_norm(conv, 2, *hw), rel=2e-5)


@pytest.mark.parametrize("hw", [(1, 1), (6, 7)])  # by a dense matrix, and by iterations
def test_a_pointwise_convolution_stretches_as_its_matrix(hw: tuple[int, int]) -> None:
    conv = nn.Conv2d(2, 2, 1)
    conv.weight.data = torch.tensor([[3.0, 0.0], [4.0, 5.0]]).view(2, 2, 1, 1)
    assert operator_norm(conv, hw) == pytest.approx(math.sqrt(45), rel=2e-5)


def test_a_sum_over_a_torus_of_equal_pixels_is_the_limit() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    nn.init.constant_(conv.weight, 1 / 3)
    assert operator_norm(conv, (8, 8)) == pytest.approx(3, rel=2e-5)


def test_many_equal_singular_values_are_no_trouble() -> None:
    torch.manual_seed(0)
    conv = CayleyConv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0))
    assert operator_norm(conv, (12, 11)) == pytest.approx(1, rel=2e-5)


@pytest.mark.parametrize("weight", [0.0, math.nan])
def test_operators_of_zeros_and_those_that_have_diverged_pass(weight: float) -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1)
    nn.init.constant_(conv.weight, weight)
    assert operator_norm(conv, (6, 6)) == pytest.approx(weight, nan_ok=True)


def test_the_convolution_stays_as_it_was() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1)
    before = {name: tensor.clone() for name, tensor in conv.state_dict().items()}
    with torch.no_grad():  # as monitors call it
        operator_norm(conv, (5, 5))
    assert conv.training and conv.weight.requires_grad and conv.weight.grad is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in conv.state_dict().items())
    assert conv.weight.dtype == torch.float32
