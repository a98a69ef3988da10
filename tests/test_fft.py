"""The frequency domain gives the numbers of the direct convolution, gradients included."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnlab.conv.fft import FFTConv2d

GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 15, "padding": 7},
    {"kernel_size": (1, 17), "padding": "valid"},
    {"kernel_size": (13, 17)},  # as large as the image: one output
    {"kernel_size": (4, 5), "stride": (3, 2), "padding": (2, 0), "dilation": (2, 3)},
    {"kernel_size": 3, "groups": 2, "padding": "same", "dilation": 2, "padding_mode": "reflect"},
    {"kernel_size": 2, "stride": 5, "padding": 1, "padding_mode": "circular", "bias": False},
    {"kernel_size": 1, "padding": 3},
]


def pair(dtype: torch.dtype = torch.float64, **geometry: Any) -> tuple[FFTConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    conv, stock = FFTConv2d(4, 6, **geometry).to(dtype), nn.Conv2d(4, 6, **geometry).to(dtype)
    stock.load_state_dict(conv.state_dict())
    return conv, stock


def outcome(conv: nn.Module, x: Tensor, pull: Tensor) -> list[Tensor]:
    """Output, and the gradients of image and parameters."""
    x = x.clone().requires_grad_()
    y = conv(x)
    return [y, *torch.autograd.grad(y, [x, *conv.parameters()], pull)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_outputs_and_gradients_are_exact(geometry: dict[str, Any]) -> None:
    conv, stock = pair(**geometry)
    x = torch.randn(3, 4, 13, 17, dtype=torch.float64)
    pull = torch.randn_like(stock(x))
    for actual, expected in zip(outcome(conv, x, pull), outcome(stock, x, pull), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_float32_is_as_exact_as_the_direct_sum() -> None:
    conv, _ = pair(torch.float32, kernel_size=15, padding=7)
    _, stock = pair(kernel_size=15, padding=7)
    x = torch.randn(2, 4, 32, 32) * 100
    error = (conv(x) - stock(x.double())).abs().max() / stock(x.double()).abs().max()
    assert error < 2e-6


def test_bf16_is_transformed_in_float32_and_comes_back_as_bf16() -> None:
    conv, stock = pair(torch.float32, kernel_size=15, padding=7)
    x = torch.randn(2, 4, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, conv(x.float()).bfloat16())  # nothing rounded before the end
    assert (y - stock(x.float())).abs().max() < 0.01
    assert conv.bfloat16()(x).dtype == torch.bfloat16  # torch has no FFT of bf16


def test_a_single_image_needs_no_batch() -> None:
    conv, stock = pair(kernel_size=5)
    x = torch.randn(4, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(conv(x), stock(x))


def test_frozen_filters_and_images_without_gradient_cost_nothing() -> None:
    conv, _ = pair(kernel_size=3)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    conv(x).sum().backward()
    assert x.grad is None and conv.weight.grad is not None
    conv.weight.requires_grad_(False).grad = None
    conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None and conv.weight.grad is None


def test_a_kernel_that_does_not_fit_the_image_is_refused_as_conv2d_does() -> None:
    for conv in pair(kernel_size=3, dilation=2, padding=1):
        assert conv(torch.zeros(1, 4, 3, 3, dtype=torch.float64)).shape == (1, 6, 1, 1)
        with pytest.raises(RuntimeError, match=r"[Kk]ernel"):
            conv(torch.zeros(1, 4, 2, 9, dtype=torch.float64))


def test_a_second_derivative_is_refused_not_wrong() -> None:
    conv, _ = pair(kernel_size=3)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(conv(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_macs_do_not_grow_with_the_kernel_but_with_its_padding() -> None:
    sizes = {k: FFTConv2d(2, 3, k, padding="same").macs((20, 20)) for k in (1, 3, 5, 15)}
    # 20, 22, 24, 34 in a row -> the next product of small primes 20, 22, 24, 35
    assert sizes == {
        k: 4 * n for k, n in {1: 20 * 11 * 6, 3: 22 * 12 * 6, 5: 24 * 13 * 6, 15: 35 * 18 * 6}.items()
    }
