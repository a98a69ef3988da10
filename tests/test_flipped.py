"""True convolution: mirrored kernels, commutativity."""

import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor

from cnnlab.conv.flipped import FlippedConv2d


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def full(kernel: Tensor, image: Tensor) -> Tensor:
    """kernel * image, one channel, full padding."""
    conv = FlippedConv2d(1, 1, kernel.shape, padding=tuple(k - 1 for k in kernel.shape), bias=False)
    conv.kernel.data = kernel[None, None]
    return conv(image[None, None])[0, 0].detach()


def test_it_is_the_convolution_of_scipy() -> None:
    kernel, image = random(3, 4), random(6, 5)
    expected = torch.as_tensor(convolve2d(image.numpy(), kernel.numpy(), mode="full"))
    torch.testing.assert_close(full(kernel, image), expected)


def test_image_and_kernel_can_change_places() -> None:
    kernel, image = random(3, 4), random(6, 5)
    torch.testing.assert_close(full(kernel, image), full(image, kernel))


def test_convolutions_in_a_row_can_be_done_in_any_order() -> None:
    a, b, image = random(3, 3), random(2, 4), random(6, 5)
    torch.testing.assert_close(full(a, full(b, image)), full(full(a, b), image))


def test_a_unit_impulse_shows_the_kernel_upright() -> None:
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert full(kernel, torch.ones(1, 1)).tolist() == kernel.tolist()


@pytest.mark.parametrize("arguments", [{}, {"groups": 2, "stride": 2, "dilation": 2, "padding": 1}])
def test_many_channels_are_each_filtered_by_their_mirrored_kernels(arguments: dict[str, int]) -> None:
    conv = FlippedConv2d(4, 6, 3, **arguments)
    assert set(dict(conv.named_parameters())) == {"kernel", "bias"}
    assert torch.equal(conv.weight[5, 1, 0, 1], conv.kernel[5, 1, 2, 1])
    assert torch.equal(conv.weight[3, 0], conv.kernel[3, 0].flipud().fliplr())


def test_a_rule_draws_the_kernel_and_a_reset_draws_it_anew() -> None:
    conv = FlippedConv2d(4, 6, 3)
    conv.initialize(lambda weight, bias: (weight.data.fill_(2), bias.data.fill_(3)))
    assert conv.weight.unique().tolist() == [2] and conv.bias.unique().tolist() == [3]
    conv.reset_parameters()
    limit = 1 / 36**0.5  # nn.Conv2d's: 1 / sqrt(fan_in)
    assert 0.9 * limit < conv.weight.abs().max() <= limit and 0 < conv.bias.abs().max() <= limit
