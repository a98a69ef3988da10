"""The ShuffleNet unit step by step, its shortcuts, and its cost."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.conv.shufflenet import ShuffleNetUnit


def unit(*geometry: Any, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return ShuffleNetUnit(*geometry, **arguments)


def normalized(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 of every channel, over batch and positions."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


def chain(conv: Any, x: Tensor) -> Tensor:
    """The paper's figure 2b without its shortcut, in training, in float64."""
    g = conv.groups
    y = F.relu(normalized(F.conv2d(x, conv.reduce.weight, groups=g)))
    y = y.unflatten(1, (g, -1)).transpose(1, 2).flatten(1, 2)
    y = F.conv2d(y, conv.depthwise.weight, None, conv.stride, conv.padding, groups=y.shape[1])
    y = normalized(F.conv2d(normalized(y), conv.expand.weight, groups=g))
    return y * conv.expand_norm.weight.view(-1, 1, 1) + conv.expand_norm.bias.view(-1, 1, 1)


def test_it_adds_its_input_where_nothing_changes_size() -> None:
    conv, x = unit(12, 12, 3, padding=1, groups=3, bottleneck=0.5).double(), torch.randn(4, 12, 6, 5).double()
    nn.init.normal_(conv.expand_norm.weight)
    nn.init.normal_(conv.expand_norm.bias)
    torch.testing.assert_close(conv(x), chain(conv, x) + x)


def test_with_a_stride_it_puts_the_mean_of_each_window_before_its_own_channels() -> None:
    """The paper's figure 2c: average pooling 3x3 of stride 2, then concatenation."""
    conv, x = unit(8, 20, 3, stride=2, padding=1, groups=4).double(), torch.randn(4, 8, 7, 6).double()
    pooled = nn.AvgPool2d(3, 2, padding=1)(x)
    torch.testing.assert_close(conv(x), torch.cat([pooled, chain(conv, x)], 1))
    assert (conv.expand.out_channels, conv.reduce.out_channels) == (12, 4)  # 20 / 4 = 5, four groups: 4


def test_with_fewer_filters_than_channels_it_has_no_shortcut() -> None:
    conv, x = unit(8, 4, 3, padding=1, groups=2).double(), torch.randn(4, 8, 7, 6).double()
    torch.testing.assert_close(conv(x), chain(conv, x))


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": (2, 5), "padding": "same", "dilation": (3, 1)},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_the_shortcut_is_the_input_itself_where_the_map_keeps_its_size(geometry: dict[str, Any]) -> None:
    conv, x = unit(4, 4, **geometry), torch.randn(2, 4, 7, 6)
    nn.init.zeros_(conv.expand_norm.weight)
    assert torch.equal(conv(x), x)


def test_without_padding_the_shortcut_is_the_pixel_in_the_middle_of_each_window() -> None:
    conv, x = unit(4, 4, (3, 5), dilation=(2, 1)), torch.randn(2, 4, 7, 8)
    nn.init.zeros_(conv.expand_norm.weight)
    assert torch.equal(conv(x), x[..., 2:-2, 2:-2])


def test_with_stride_and_dilation_the_mean_is_over_the_whole_reach() -> None:
    conv, x = unit(4, 4, 2, stride=(1, 2), dilation=2), torch.randn(2, 4, 7, 8)
    nn.init.zeros_(conv.expand_norm.weight)
    torch.testing.assert_close(conv(x), F.avg_pool2d(x, 3, (1, 2)))


def test_it_costs_what_the_paper_says() -> None:
    """hw (2cm/g + 9m); the bottlenecks of ResNet, 47,980,800, and ResNeXt, 31,046,400, are dearer."""
    conv = unit(240, 240, 3, padding="same", groups=3)
    assert conv.reduce.out_channels == 60
    assert conv.macs((28, 28)) == 28 * 28 * (2 * 240 * 60 // 3 + 9 * 60) == 7_949_760


def test_every_parameter_has_an_effect_and_a_bias_can_be_left_out() -> None:
    names = {name for name, _ in unit(8, 8, 3, padding=1).named_parameters()}
    assert names == {
        *("reduce.weight", "depthwise.weight", "expand.weight"),
        *("reduce_norm.weight", "reduce_norm.bias", "expand_norm.weight", "expand_norm.bias"),
    }
    conv, x = unit(8, 8, 3, padding=1, bias=False).double(), torch.randn(4, 8, 6, 5).double()
    assert {n for n, _ in conv.named_parameters()} == names - {"expand_norm.bias"}
    torch.testing.assert_close((conv(x) - x).mean((0, 2, 3)), torch.zeros(8).double(), atol=1e-12, rtol=0)


def test_the_norm_in_the_middle_needs_no_scale_and_shift() -> None:
    """The next convolution passes them on to a norm, which takes them out again but for its epsilon."""
    conv, x = unit(8, 8, 3, padding=1).double(), torch.randn(4, 8, 6, 5).double()
    before = conv(x)
    conv.depthwise_norm.register_forward_hook(lambda module, inputs, output: 2 * output + 3)
    torch.testing.assert_close(conv(x), before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("bottleneck", [0, -1.0, math.nan, math.inf, "wide", True])
def test_a_bottleneck_that_is_no_ratio_is_refused(bottleneck: Any) -> None:
    with pytest.raises(ValueError, match=r"^bottleneck must be"):
        unit(4, 4, 3, bottleneck=bottleneck)


def test_a_narrow_bottleneck_keeps_a_channel_a_group() -> None:
    assert unit(8, 8, 3, groups=4, bottleneck=0.01).reduce.out_channels == 4
