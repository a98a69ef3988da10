"""SkewOrthogonalConv2d against the exponential of a dense matrix, and the bound of its norm."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlab.conv.skew_orthogonal import SkewOrthogonalConv2d, spectral_bound

SIZE = 5  # blocks on a side
GEOMETRIES: list[dict[str, Any]] = [
    {"in_channels": 3, "out_channels": 3, "kernel_size": 1},
    {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 1},
    {"in_channels": 3, "out_channels": 2, "kernel_size": (5, 3), "padding": "same"},
    {"in_channels": 2, "out_channels": 2, "kernel_size": (3, 1), "padding": "same", "dilation": 2},
    {"in_channels": 1, "out_channels": 5, "kernel_size": 3, "padding": 1, "stride": 2},
    {"in_channels": 2, "out_channels": 3, "kernel_size": 5, "padding": 2, "stride": 2},
    {"in_channels": 2, "out_channels": 2, "kernel_size": (2, 4), "padding": "same"},
]


def difference(conv: SkewOrthogonalConv2d) -> Tensor:
    """nn.Conv2d's own strided convolution with the weight as a matrix of blocks, minus its transpose."""
    stride, out = conv.stride[0], conv.out_channels
    channels = max(conv.in_channels * stride**2, out)
    units = torch.eye(channels * SIZE**2, dtype=torch.float64).view(-1, channels, SIZE, SIZE)
    images = F.pixel_shuffle(units[:, : conv.in_channels * stride**2], stride)
    with torch.no_grad():
        responses = conv._conv_forward(images, conv.weight, None)
    matrix = F.pad(responses, (0, 0, 0, 0, 0, channels - out)).flatten(1).mT
    return matrix - matrix.mT


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_it_is_the_exponential_of_the_convolution_minus_its_transpose(
    geometry: dict[str, Any], mode: Any
) -> None:
    torch.manual_seed(0)
    conv = SkewOrthogonalConv2d(**geometry, padding_mode=mode, terms=25, angle=3.0).double()
    matrix = difference(conv)
    generator = matrix * (conv.skew_kernel(conv._kernel()).abs().max() / matrix.abs().max()).detach()
    norm = torch.linalg.matrix_norm(generator, 2)
    assert 1 < norm <= 3  # `angle` bounds it, and not by much more than need be

    x = torch.randn(2, conv.in_channels, *(conv.stride[0] * SIZE,) * 2, dtype=torch.float64)
    blocks = F.pixel_unshuffle(x, conv.stride[0])
    blocks = F.pad(blocks, (0, 0, 0, 0, 0, len(matrix) // SIZE**2 - blocks.shape[1])).flatten(1)
    expected = (blocks @ torch.linalg.matrix_exp(generator).mT).view(2, -1, SIZE, SIZE)
    expected = expected[:, : conv.out_channels] + conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-9)


def test_the_terms_are_those_of_the_series() -> None:
    conv = SkewOrthogonalConv2d(1, 1, (1, 3), padding="same", bias=False, terms=2)
    conv.weight.data = torch.tensor([[[[0.0, 0.0, 1.0]]]])
    y = conv(torch.tensor([[[[0.0, 1.0, 0.0]]]]))  # J e2 = (1, 0, -1) / sqrt 6, J^2 e2 / 2 = -e2 / 6
    torch.testing.assert_close(y, torch.tensor([[[[6**-0.5, 5 / 6, -(6**-0.5)]]]]))


@pytest.mark.parametrize("terms", [1, 2, 3, 5, 8])
def test_violation_is_the_remainder_of_the_series(terms: int) -> None:
    conv = SkewOrthogonalConv2d(1, 1, (1, 3), padding="same", bias=False, terms=terms)
    conv.weight.data = torch.tensor([[[[0.0, 0.0, 1.0]]]])
    theta = 2 * math.sin(math.pi / 3) / math.sqrt(6)  # the largest of frequencies 0, 60, 120 ... degrees
    series = sum((1j * theta) ** i / math.factorial(i) for i in range(terms + 1))
    assert conv.violation().item() == pytest.approx(abs(abs(series) - 1), abs=1e-6)
    assert conv.violation() <= conv.tolerance


@pytest.mark.parametrize(("terms", "angle"), [(5, 1.0), (6, 1.0), (8, 2.0)])
def test_a_pointwise_one_turns_by_the_angle_and_is_within_its_tolerance(terms: int, angle: float) -> None:
    torch.manual_seed(0)
    conv = SkewOrthogonalConv2d(2, 2, 1, bias=False, terms=terms, angle=angle)
    x = torch.tensor([[[[1.0]], [[0.0]]]])
    # A skew 2 x 2 matrix has two equal singular values: the bound is 2^(1/128) times too large.
    turned = torch.tensor([math.cos(angle / 2 ** (1 / 128)), math.sin(angle / 2 ** (1 / 128))])
    torch.testing.assert_close(conv(x).flatten().abs(), turned.abs(), rtol=0, atol=conv.tolerance)
    assert conv.violation() <= conv.tolerance
    assert conv.violation() > conv.tolerance / 20


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 4, 36), (2, 30, 7)], ids=str)
def test_the_spectral_bound_is_never_below_the_norm_and_hardly_above(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    norm = torch.linalg.matrix_norm(matrix, 2)
    assert (spectral_bound(matrix) >= norm * (1 - 1e-12)).all()
    assert (spectral_bound(matrix) <= norm * min(shape[-2:]) ** (1 / 128) * (1 + 1e-12)).all()
    for scale in (1e-15, 1e15):
        torch.testing.assert_close(
            spectral_bound(matrix.float() * scale), norm.float() * scale, rtol=0.03, atol=0
        )
    assert spectral_bound(torch.zeros(shape)).max() < 1e-30


def test_the_length_of_the_weight_does_not_matter() -> None:
    conv, x = SkewOrthogonalConv2d(2, 3, 3, padding=1), torch.randn(2, 2, 5, 5)
    expected = conv(x)
    conv.weight.data *= 1000
    torch.testing.assert_close(conv(x), expected)


def test_groups_are_convolutions_of_their_own() -> None:
    conv, x = SkewOrthogonalConv2d(4, 6, 3, padding=1, groups=2, bias=False), torch.randn(2, 4, 5, 5)
    halves = []
    for part, image in zip(conv.weight.chunk(2), x.chunk(2, 1), strict=True):
        half = SkewOrthogonalConv2d(2, 3, 3, padding=1, bias=False)
        half.weight.data = part.detach()
        halves.append(half(image))
    torch.testing.assert_close(conv(x), torch.cat(halves, 1))


def test_macs_are_those_of_the_terms() -> None:
    assert SkewOrthogonalConv2d(2, 3, 3, padding=1, terms=4).macs((5, 6)) == 4 * 30 * 3 * 3 * 9
    strided = SkewOrthogonalConv2d(2, 3, 3, padding=1, stride=2, terms=1)  # 8 channels, 3 x 3 blocks
    assert strided.macs((5, 6)) == 9 * 8 * 8 * 9


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"terms": 0}, "terms must be a whole number >= 1, got 0"),
        ({"terms": 2.0}, "terms must be a whole number >= 1, got 2.0"),
        ({"angle": 0}, "angle must be a number > 0, got 0"),
        ({"angle": math.inf}, "angle must be at most pi, got inf"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SkewOrthogonalConv2d(1, 1, 3, **knobs)
