"""Groups that do not see one another, the shuffle behind them, and the counts of AlexNet."""

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab.conv.grouped import GroupedConv2d, ShuffledGroupedConv2d

WORDS = ("grouped", "shuffled_grouped", "pointwise_grouped", "shufflenet_unit")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("channels", "groups"), [((8, 16), 4), ((6, 16), 2), ((9, 15), 1), ((1, 32), 1), ((8, 6), 2)], ids=str
)
def test_as_many_groups_as_divide_both_channel_counts(
    word: str, channels: tuple[int, int], groups: int
) -> None:
    conv = cnnlab.create("conv", word, *channels, 3, padding="same")
    assert conv.groups == groups
    assert conv(torch.ones(1, channels[0], 5, 4)).shape == (1, channels[1], 5, 4)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("groups", [0, -2, 1.5, True, "2"])
def test_groups_that_are_no_count_are_refused(word: str, groups: object) -> None:
    with pytest.raises(ValueError, match=r"^groups must be a whole number >= 1, got"):
        cnnlab.create("conv", word, 4, 8, 3, groups=groups)


@pytest.mark.parametrize("word", ["grouped", "pointwise_grouped"])
def test_a_group_sees_only_its_own_channels(word: str) -> None:
    torch.manual_seed(0)
    conv, x = cnnlab.create("conv", word, 8, 12, 3, padding=1), torch.randn(1, 8, 5, 5)
    other = x.clone()
    other[:, 2:4] += 1  # the second of four groups
    changed = (conv(other) != conv(x)).flatten(2).any(-1)[0]
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 6


def test_after_a_shuffle_the_next_groups_see_all_of_the_last() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(ShuffledGroupedConv2d(4, 4, 1, bias=False, groups=2) for _ in range(2)))
    plain = nn.Sequential(*(GroupedConv2d(4, 4, 1, bias=False, groups=2) for _ in range(2)))
    plain.load_state_dict(net.state_dict())
    image = torch.zeros(1, 4, 1, 1)
    image[:, 0] = 1
    assert net(image).count_nonzero() == 4
    assert plain(image).count_nonzero() == 2


def test_a_single_image_is_shuffled_by_channels_not_by_rows() -> None:
    conv, x = ShuffledGroupedConv2d(4, 6, 3, padding=1, groups=2), torch.randn(4, 8, 8)
    assert torch.equal(conv(x), conv(x.unsqueeze(0))[0])


def test_a_shuffle_of_three_groups_by_hand() -> None:
    conv = ShuffledGroupedConv2d(3, 6, 1, groups=3)
    nn.init.zeros_(conv.weight)
    conv.bias.data = torch.arange(6.0)
    assert conv(torch.zeros(1, 3, 1, 1)).flatten().tolist() == [0, 2, 4, 1, 3, 5]  # (01)(23)(45)


@pytest.mark.parametrize(("geometry", "claim"), [((4, 6, 2), False), ((4, 6, 1), True), ((4, 4, 4), True)])
def test_it_is_a_convolution_where_the_shuffle_moves_nothing(
    geometry: tuple[int, int, int], claim: bool
) -> None:
    in_channels, out_channels, groups = geometry
    torch.manual_seed(0)
    conv, x = ShuffledGroupedConv2d(in_channels, out_channels, 3, groups=groups), torch.randn(2, 4, 5, 5)
    same = torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, groups=groups))
    assert conv.is_convolution == same == claim


def test_alexnet_takes_the_multiplications_of_its_two_halves() -> None:
    """Krizhevsky et al. 2012: the second, fourth and fifth layer in two groups, then three dense layers."""
    layers = [
        (GroupedConv2d(3, 96, 11, stride=4), 227),
        (GroupedConv2d(96, 256, 5, padding=2, groups=2), 27),
        (GroupedConv2d(256, 384, 3, padding=1), 13),
        (GroupedConv2d(384, 384, 3, padding=1, groups=2), 13),
        (GroupedConv2d(384, 256, 3, padding=1, groups=2), 13),
    ]
    macs = sum(conv.macs((size, size)) for conv, size in layers)
    assert macs == 665_784_864
    assert macs + 9216 * 4096 + 4096 * 4096 + 4096 * 1000 == 724_406_816


def test_two_groups_halve_the_kernel() -> None:
    assert 2 * GroupedConv2d(8, 12, 3, groups=2).weight.numel() == GroupedConv2d(8, 12, 3).weight.numel()
