"""Dilation spreads the taps of a kernel without adding any."""

import pytest
import torch
from torch import nn

import cnnlab


def seen(*dilations: int) -> int:
    """Width of the field that one output of 3x3 convolutions in a row depends on."""
    convs = [cnnlab.create("conv", "dilated", 1, 1, 3, padding="same", dilation=d) for d in dilations]
    for conv in convs:
        nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 41, 41, requires_grad=True)
    nn.Sequential(*convs)(x)[0, 0, 20, 20].backward()
    touched = x.grad[0, 0, 20].nonzero().flatten()
    return int(touched.max() - touched.min()) + 1


@pytest.mark.parametrize(("dilation", "alone", "stacked"), [(1, 3, 3), (2, 5, 7), (4, 9, 15)])
def test_a_kernel_sees_2_dilation_plus_1_and_a_stack_the_sum(dilation: int, alone: int, stacked: int) -> None:
    assert seen(dilation) == alone
    assert seen(*(d for d in (1, 2, 4) if d <= dilation)) == stacked


def test_it_is_dilated_by_2_unless_told_otherwise_and_has_no_more_taps() -> None:
    conv = cnnlab.create("conv", "dilated", 3, 8, 3)
    assert conv.dilation == (2, 2) and conv.weight.shape == (8, 3, 3, 3)
    assert cnnlab.create("conv", "dilated", 3, 8, 3, dilation=3).dilation == (3, 3)
