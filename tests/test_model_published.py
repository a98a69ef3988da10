"""Published architectures: their sizes, counts and forward passes."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cnnlab
from cnnlab.activation import CReLU, Maxout
from cnnlab.conv import layers
from cnnlab.cost import macs, parameters
from cnnlab.model.alexnet import AlexNet
from cnnlab.model.all_cnn_c import AllCNNC
from cnnlab.model.convpool_cnn_c import ConvPoolCNNC
from cnnlab.model.resnet import Residual, ResNet
from cnnlab.model.singla import Singla
from cnnlab.model.spherenet9 import SphereNet9
from cnnlab.model.stack import MAX_2X2, Stack

CIFAR = (3, 32, 32)
overlapping_max = functools.partial(cnnlab.create, "pooling", "overlapping_max")


def maps(net: nn.Module, shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """The shapes that leave the convolutions and pools, in order."""
    shapes = []
    kinds = (*map(type, layers(net).values()), nn.MaxPool2d)
    hooks = [
        module.register_forward_hook(lambda module, input, output: shapes.append(tuple(output.shape[1:])))
        for module in net.modules()
        if isinstance(module, kinds)
    ]
    net.eval()(torch.zeros(1, *shape, device=next(net.parameters()).device))
    for hook in hooks:
        hook.remove()
    return shapes


# singla


def test_singla_has_the_published_sizes():
    net = Singla(CIFAR, 10)
    assert [parameters(layer) for layer in net.features if parameters(layer)] == [2432, 9248, 18496, 36928]
    assert [parameters(layer) for layer in net.classifier if parameters(layer)] == [1_180_160, 5_130]
    assert maps(net, CIFAR) == [
        (32, 32, 32),
        (32, 30, 30),
        (32, 15, 15),
        (64, 15, 15),
        (64, 13, 13),
        (64, 6, 6),
    ]


def test_singla_takes_10x10_and_refuses_less():
    assert Singla((1, 10, 10), 4)(torch.zeros(2, 1, 10, 10)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"^input_shape must be 10x10 or more, got 28x9$"):
        Singla((1, 28, 9), 4)


def test_singla_doubles_the_inputs_after_crelu():
    net = Singla(CIFAR, 10, activation=CReLU)
    inputs = [layer.weight.shape[1] for layer in [*net.features, *net.classifier] if hasattr(layer, "weight")]
    assert inputs == [3, 64, 64, 128, 2 * 2304, 2 * 512]


# convpool_cnn_c, all_cnn_c


@pytest.mark.parametrize("model", [ConvPoolCNNC, AllCNNC])
@pytest.mark.parametrize(
    ("activation", "width", "count"),
    [
        (nn.ReLU, 1, 1_369_738),
        (nn.ReLU, 2, 5_467_402),
        (CReLU, 1, 2_735_626),
        (CReLU, 0.5, 685_834),
    ],
)
def test_the_cnn_c_nets_have_the_counts_of_the_crelu_paper(model, activation, width, count):
    with torch.device("meta"):
        assert parameters(model(CIFAR, 10, activation=activation, width=width)) == count


def test_the_cnn_c_nets_average_scores_over_6x6_pixels():
    pooled, strided = ConvPoolCNNC(CIFAR, 10, pooling=overlapping_max), AllCNNC(CIFAR, 10)
    big, half, quarter, last = (96, 32, 32), (192, 16, 16), (192, 8, 8), (192, 6, 6)
    assert maps(pooled, CIFAR) == [big] * 3 + [(96, 16, 16)] + [half] * 3 + [quarter, last, last]
    assert maps(strided, CIFAR) == [big, big, (96, 16, 16), half, half, quarter, last, last]
    features = pooled.eval().features(images := torch.rand(2, *CIFAR))
    slow = (features.permute(0, 2, 3, 1) @ pooled.scores.weight.T + pooled.scores.bias).mean((1, 2))
    torch.testing.assert_close(pooled(images), slow)


def test_the_cnn_c_nets_drop_pixels_and_the_features_after_each_pool():
    for model in (ConvPoolCNNC, AllCNNC):
        net = model((1, 16, 16), 2, width=0.1)
        assert [layer.p for layer in net.features if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5]
        assert type(net.features[0]) is nn.Dropout
        undropped = model((1, 16, 16), 2, width=0.1, input_dropout=0.0, dropout=0.0)
        assert not any(isinstance(layer, nn.Dropout) for layer in undropped.features)


# resnet


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnets_have_the_published_counts(depth, count):
    with torch.device("meta"):
        net = ResNet(CIFAR, 10, depth=depth)
    assert parameters(net) == count
    assert len(layers(net)) + 1 == depth


def test_resnet_halves_the_map_twice():
    sizes = maps(ResNet((3, 31, 18), 10, depth=8), (3, 31, 18))
    assert sizes == [(16, 31, 18)] * 3 + [(32, 16, 9)] * 2 + [(64, 8, 5)] * 2


def block(channels: int, filters: int, activation: nn.Module, stride: int = 1) -> Residual:
    branch = Stack(channels, nn.Conv2d, type(activation), MAX_2X2)
    branch.conv(filters, 3, stride=stride)
    branch.conv(filters, 3, activate=False)
    return Residual(branch, activation, stride=stride, scale=0.5)


def test_a_residual_block_adds_its_branch_to_the_image():
    residual, images = block(2, 4, nn.ReLU(), stride=2), torch.randn(2, 2, 5, 6)
    first, _, second = residual.branch
    branch = F.conv2d(images, first.weight, first.bias, 2, 1).relu()
    expected = 0.5 * F.conv2d(branch, second.weight, second.bias, 1, 1)
    expected[:, :2] += images[:, :, [0, 2, 4]][..., [0, 2, 4]]  # the new channels are zero
    torch.testing.assert_close(residual(images), expected.relu())


def test_a_shortcut_leaves_out_the_negative_phases():
    residual, images = block(6, 3, CReLU()), torch.rand(2, 6, 4, 4)
    residual.scale.data.zero_()
    assert torch.equal(residual(images), torch.cat((images[:, :3], torch.zeros(2, 3, 4, 4)), 1))


def test_resnet_without_batch_norm_starts_as_large_at_any_depth():
    images = torch.randn(16, *CIFAR)
    sizes = []
    for depth in (8, 56):
        torch.manual_seed(0)
        net = ResNet(CIFAR, 10, depth=depth, batch_norm=False, width=0.5)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        assert all(layer.bias is not None for layer in layers(net).values())
        sizes.append(net.features(images).std().item())
    assert 0.5 < sizes[1] / sizes[0] < 2


def test_resnet_without_batch_norm_learns():
    torch.manual_seed(0)
    net = ResNet((1, 8, 8), 2, batch_norm=False, width=0.25)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    images, labels = torch.randn(64, 1, 8, 8), torch.arange(64) % 2
    images[labels == 1, :, :4] += 1
    losses = []
    for _ in range(30):
        losses.append(loss := F.cross_entropy(net(images), labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


# spherenet9


def test_spherenet9_ends_with_a_filter_as_large_as_the_map():
    net = SphereNet9(CIFAR, 10, width=0.25)
    assert list(layers(net).values())[-1].kernel_size == (4, 4)
    first = [(32, 32, 32)] * 3 + [(32, 16, 16)] + [(48, 16, 16)] * 3 + [(48, 8, 8)]
    assert maps(net, CIFAR) == [*first, *[(64, 8, 8)] * 3, (64, 4, 4), (64, 1, 1)]
    assert net(torch.zeros(2, 3, 48, 32)).shape == (2, 10, 3, 1)


@pytest.mark.parametrize("activation", [nn.ReLU, CReLU, functools.partial(Maxout, k=2)])
def test_spherenet9_without_batch_norm_has_biases(activation):
    net = SphereNet9((1, 16, 24), 3, width=0.125, batch_norm=False, activation=activation)
    assert all(layer.bias is not None for layer in layers(net).values())
    assert net(torch.zeros(2, 1, 16, 24)).shape == (2, 3)


# alexnet


@pytest.mark.parametrize("pooling", [MAX_2X2, overlapping_max])
def test_alexnet_has_the_published_cost(pooling):
    shape = (3, 227, 227)
    with torch.device("meta"):
        grouped = AlexNet(shape, 1000, pooling=pooling)
        dense = AlexNet(shape, 1000, pooling=pooling, groups=1)
    sizes = [(96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13)]
    assert maps(grouped, shape) == [*sizes, (384, 13, 13), (384, 13, 13), (256, 13, 13), (256, 6, 6)]
    assert parameters(grouped) == 60_965_224
    assert macs(grouped, shape) == 665_784_864 + 58_621_952 == 724_406_816
    assert macs(dense, shape) == 1_135_256_096


def test_alexnet_groups_divide_the_channels_that_width_leaves():
    net = AlexNet((3, 63, 63), 10, width=0.11, groups=4)  # 11, 28, 42, 42, 28 filters
    assert [layer.groups for layer in layers(net).values()] == [1, 1, 1, 2, 2]


def test_alexnet_normalises_by_neighbouring_channels_as_published():
    net = AlexNet((1, 63, 63), 10, width=0.1)
    norm = next(layer for layer in net.features if isinstance(layer, nn.LocalResponseNorm))
    x = torch.rand(1, 10, 2, 2) * 50
    slow = torch.empty_like(x)
    for i in range(10):
        squares = x[:, max(0, i - 2) : i + 3].square().sum(1)
        slow[:, i] = x[:, i] / (2 + 1e-4 * squares) ** 0.75
    torch.testing.assert_close(norm(x), slow)
    without = AlexNet((1, 63, 63), 10, width=0.1, norm=False)
    assert not any(isinstance(layer, nn.LocalResponseNorm) for layer in without.features)


def test_alexnet_drops_after_both_hidden_layers():
    net = AlexNet((1, 63, 63), 10, width=0.05)
    kinds = [type(layer).__name__ for layer in net.classifier]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
