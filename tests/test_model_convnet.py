"""convnet: INPUT -> [[CONV -> ACT]*n -> POOL]*m -> [FC -> ACT]*k -> FC."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cnnlab
from cnnlab.activation import CReLU, Maxout
from cnnlab.cost import parameters
from cnnlab.model.convnet import ConvNet


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_without_blocks_and_hidden_layers_it_is_a_linear_classifier():
    net = ConvNet((1, 8, 8), 10, filters=[])
    assert kinds(net.features) == []
    assert kinds(net.classifier) == ["Flatten", "Linear"]
    assert parameters(net) == 64 * 10 + 10


def test_it_follows_the_grammar():
    net = ConvNet((1, 8, 8), 10, filters=[4, 8], convs=2, dense=[16, 12])
    block = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(net.features) == block * 2
    assert kinds(net.classifier) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    convolutions = (9 + 1) * 4 + (9 * 4 + 1) * 4 + (9 * 4 + 1) * 8 + (9 * 8 + 1) * 8
    assert parameters(net) == convolutions + (8 * 2 * 2 + 1) * 16 + (16 + 1) * 12 + (12 + 1) * 10


def test_batch_norm_stands_before_the_activation_and_dropout_before_dense_layers():
    net = ConvNet((1, 8, 8), 10, filters=[4], convs=1, dense=[6], batch_norm=True, dropout=0.5)
    assert kinds(net.features) == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Dropout"]
    assert kinds(net.classifier) == ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert net.features[0].bias is None
    assert net.features[1].num_batches_tracked == 0
    assert net.features[4].p == net.classifier[3].p == 0.5


@pytest.mark.parametrize(
    ("padding", "kernel_size", "dilation", "size"),
    [
        ("same", 5, 1, (5, 7)),
        ("same", 3, 2, (5, 7)),
        ("valid", 3, 1, (3, 5)),
        ("valid", 3, 2, (1, 3)),
        ("full", 3, 1, (7, 9)),
        ("full", 4, 1, (8, 10)),
        ("full", 3, 2, (9, 11)),
        ("full", 1, 2, (5, 7)),
    ],
)
def test_padding_decides_the_size_of_the_map(padding, kernel_size, dilation, size):
    conv = functools.partial(nn.Conv2d, dilation=dilation)
    knobs = {"filters": [3], "convs": 1, "kernel_size": kernel_size, "pooling": nn.Identity}
    net = ConvNet((1, 5, 7), 2, conv=conv, padding=padding, **knobs)
    assert net.features(torch.zeros(1, 1, 5, 7)).shape == (1, 3, *size)
    assert parameters(net) == (kernel_size**2 + 1) * 3 + (3 * size[0] * size[1] + 1) * 2


def test_full_padding_sees_every_pixel_with_every_tap():
    net = ConvNet((1, 4, 5), 2, filters=[1], convs=1, padding="full", pooling=nn.Identity)
    layer, image = net.features[0], torch.rand(1, 1, 4, 5)
    slow = F.conv_transpose2d(image, layer.weight.flip(2, 3), layer.bias)  # scatters each pixel
    torch.testing.assert_close(layer(image), slow)


def test_padding_draws_nothing():
    first = []
    for padding in ("same", "full"):
        torch.manual_seed(0)
        first.append(ConvNet((1, 8, 8), 2, padding=padding).features[0].weight)
    assert torch.equal(*first)


@pytest.mark.parametrize(
    ("activation", "times"), [(CReLU, 2), (functools.partial(Maxout, k=4), 0.25), (nn.ReLU, 1)]
)
def test_the_next_layer_takes_as_many_channels_as_the_activation_gives(activation, times):
    net = ConvNet((1, 8, 8), 10, activation=activation, filters=[8], dense=[12])
    after_one, after_dense = int(8 * times), int(12 * times)
    convolutions = (9 + 1) * 8 + (9 * after_one + 1) * 8
    assert parameters(net) == convolutions + (after_one * 4 * 4 + 1) * 12 + (after_dense + 1) * 10


@pytest.mark.parametrize(
    ("word", "features"),
    [
        ("max", 2 * 3 * 8),
        ("overlapping_max", 2 * 3 * 8),  # 9x13 -> 4x6 -> 2x3, the last windows cut off
        ("average", 2 * 3 * 8),
        ("l2", 2 * 3 * 8),
        ("global_average", 8),
        ("adaptive", 2 * 2 * 8),
        ("cross_channel", 9 * 13 * 4),
        ("none", 9 * 13 * 8),
    ],
)
def test_every_pooling_hands_on_its_map(word, features):
    pooling = functools.partial(cnnlab.create, "pooling", word)
    net = ConvNet((1, 9, 13), 10, filters=[4, 8], convs=1, pooling=pooling)
    assert net.classifier[1].in_features == features


def test_it_takes_the_smallest_image_that_its_pools_allow():
    assert ConvNet((1, 4, 4), 10, filters=[2, 2])(torch.zeros(1, 1, 4, 4)).shape == (1, 10)
    said = r"^input_shape must be 4x4 or more for filters \[2, 2\], padding same, got 3x9$"
    with pytest.raises(ValueError, match=said):
        ConvNet((1, 3, 9), 10, filters=[2, 2])
    with pytest.raises(ValueError, match=r"^input_shape must be 16x16 or more .* padding valid, got 15x16$"):
        ConvNet((1, 15, 16), 10, padding="valid")  # 16 -> 12 -> 6 -> 2 -> 1


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"filters": 32}, "filters must be a list of whole numbers >= 1, got 32"),
        ({"filters": [8, 0]}, "filters must be a whole number >= 1, got 0"),
        ({"dense": [2.5]}, "dense must be a whole number >= 1, got 2.5"),
        ({"convs": 0}, "convs must be a whole number >= 1, got 0"),
        ({"kernel_size": -3}, "kernel_size must be a whole number >= 1, got -3"),
        ({"padding": "sane"}, "padding must be one of same, valid, full; got 'sane', did you mean 'same'?"),
        ({"batch_norm": 1}, "batch_norm must be true or false, got 1"),
        ({"dropout": -0.1}, "dropout must be a number >= 0 and <= 1, got -0.1"),
        ({"dropout": 1.5}, "dropout must be a number >= 0 and <= 1, got 1.5"),
        ({"filters": [3], "activation": Maxout}, "k must divide the number of channels, 3, got 2"),
        (
            {"filters": [4], "dense": [3], "activation": Maxout},
            "k must divide the number of channels, 3, got 2",
        ),
        (
            {"filters": [1, 1], "activation": functools.partial(Maxout, k=4)},
            "k must divide the number of channels, 1, got 4",
        ),
    ],
)
def test_it_refuses_in_one_line(knobs, line):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        ConvNet((1, 8, 8), 10, **knobs)
    assert str(refusal.value) == line
