"""CayleyConv2d against the Cayley map of a dense matrix."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlab.conv.cayley import CayleyConv2d, cayley, frequency_response

GEOMETRIES: list[dict[str, Any]] = [
    {"in_channels": 3, "out_channels": 3, "kernel_size": 1},
    {"in_channels": 2, "out_channels": 2, "kernel_size": (3, 5), "padding": "same"},
    {"in_channels": 2, "out_channels": 5, "kernel_size": 3, "padding": 1},
    {"in_channels": 3, "out_channels": 2, "kernel_size": 3, "padding": 1},
    {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 2, "dilation": 2},
    {"in_channels": 1, "out_channels": 5, "kernel_size": 3, "padding": 1, "stride": 2},
    {"in_channels": 2, "out_channels": 3, "kernel_size": 5, "padding": 2, "stride": 2},
]


def convolution(conv: CayleyConv2d, height: int, width: int) -> Tensor:
    """nn.Conv2d's own convolution with the weight, of an image cut into blocks, as a matrix."""
    channels = conv.in_channels * conv.stride[0] ** 2
    units = torch.eye(channels * height * width, dtype=torch.float64).view(-1, channels, height, width)
    with torch.no_grad():
        return conv._conv_forward(F.pixel_shuffle(units, conv.stride[0]), conv.weight, None).flatten(1).mT


@pytest.mark.parametrize(("height", "width"), [(6, 5), (5, 6), (5, 5)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_it_is_the_cayley_map_of_the_circular_convolution(
    geometry: dict[str, Any], height: int, width: int
) -> None:
    torch.manual_seed(0)
    conv = CayleyConv2d(**geometry, padding_mode="circular").double()
    matrix = convolution(conv, height, width)  # (out H W, in H W)
    rows, columns = matrix.shape
    tall = matrix if rows >= columns else matrix.mT
    square, rest = tall.split([min(rows, columns), abs(rows - columns)])
    a = square - square.mT + rest.mT @ rest
    identity = torch.eye(len(a), dtype=torch.float64)
    inverse = torch.linalg.inv(identity + a)
    q = torch.cat([(identity - a) @ inverse, -2 * rest @ inverse])
    q = q if rows >= columns else q.mT

    stride = conv.stride[0]
    x = torch.randn(2, conv.in_channels, stride * height, stride * width, dtype=torch.float64)
    expected = (F.pixel_unshuffle(x, stride).flatten(1) @ q.mT).view(2, -1, height, width)
    torch.testing.assert_close(conv(x), expected + conv.bias.view(-1, 1, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (4, 2, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_its_matrices_have_orthonormal_columns_or_rows(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q = cayley(10 * torch.randn(shape, dtype=dtype))
    gram = q.mH @ q if shape[-2] >= shape[-1] else q @ q.mH
    torch.testing.assert_close(gram, torch.eye(min(shape[-2:]), dtype=dtype).expand_as(gram))


def test_the_map_of_a_square_matrix_is_that_of_its_skew_part() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.complex128)
    skew, identity = matrix - matrix.mH, torch.eye(4, dtype=torch.complex128)
    torch.testing.assert_close(cayley(matrix), torch.linalg.solve(identity + skew, identity - skew))


@pytest.mark.parametrize("hw", [(6, 7), (7, 6), (2, 3), (1, 1)])
def test_the_frequency_response_is_that_of_the_kernel_wrapped_around_the_image(hw: tuple[int, int]) -> None:
    kernel = torch.randn(3, 2, 3, 5, dtype=torch.float64)
    wrapped = torch.zeros(3, 2, *hw, dtype=torch.float64)
    for a in range(3):
        for b in range(5):
            wrapped[..., (1 - a) % hw[0], (2 - b) % hw[1]] += kernel[..., a, b]  # mirrored: a correlation
    expected = torch.fft.rfft2(wrapped).permute(3, 2, 0, 1)
    torch.testing.assert_close(frequency_response(kernel, hw), expected)


def test_groups_are_convolutions_of_their_own() -> None:
    conv, x = CayleyConv2d(4, 6, 3, padding=1, groups=2, bias=False), torch.randn(2, 4, 5, 5)
    halves = []
    for part, image in zip(conv.weight.chunk(2), x.chunk(2, 1), strict=True):
        half = CayleyConv2d(2, 3, 3, padding=1, bias=False)
        half.weight.data = part.detach()
        halves.append(half(image))
    torch.testing.assert_close(conv(x), torch.cat(halves, 1))


def test_large_weights_leave_it_orthogonal() -> None:
    conv = CayleyConv2d(4, 4, 3, padding=1)
    for scale in (1e-6, 30.0):
        conv.weight.data *= scale
        assert conv.violation() <= conv.tolerance


def test_macs_are_four_real_ones_for_each_complex_one() -> None:
    assert CayleyConv2d(2, 3, 3).macs((5, 6)) == 4 * 5 * 4 * 2 * 3  # 5 x 4 frequencies
    assert CayleyConv2d(2, 3, 3, padding=1).macs((5, 6)) == 4 * 7 * 5 * 2 * 3  # a frame of 7 x 8
    assert CayleyConv2d(2, 4, 3, stride=2, groups=2).macs((6, 6)) == 4 * 3 * 2 * 4 * 4


def test_many_channels_are_inverted_right_with_several_threads() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        matrix = torch.randn(6, 200, 192, generator=torch.Generator().manual_seed(0)).to(torch.cfloat)
        columns = cayley(matrix / 20)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(columns.mH @ columns, torch.eye(192, dtype=torch.cfloat).expand(6, -1, -1))
