import functools

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab import conv
from cnnlab.activation import CReLU, Maxout
from cnnlab.model.convnet import ConvNet
from cnnlab.model.linear import LinearClassifier
from cnnlab.model.singla import Singla

MODELS = cnnlab.available("model")


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module]


@pytest.mark.parametrize("word", MODELS)
def test_scores_have_one_column_per_class(word):
    net = cnnlab.create("model", word, (3, 17, 12), 7)
    assert net(torch.zeros(2, 3, 17, 12)).shape == (2, 7)
    assert net.training


@pytest.mark.parametrize("word", MODELS)
def test_every_parameter_has_a_size_and_gets_a_gradient(word):
    torch.manual_seed(0)
    net = cnnlab.create("model", word, (1, 12, 12), 3)
    net(torch.rand(8, 1, 12, 12)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("word", MODELS)
def test_examples_do_not_mix(word):
    net = cnnlab.create("model", word, (1, 12, 12), 3).eval()
    images = torch.rand(4, 1, 12, 12)
    alone = torch.cat([net(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(net(images), alone)


@pytest.mark.parametrize("word", MODELS)
def test_models_are_built_on_the_meta_device(word):
    with torch.device("meta"):
        net = cnnlab.create("model", word, (3, 32, 32), 10)
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize("word", MODELS)
def test_building_runs_one_image_in_eval_mode_without_gradients(word):
    seen = []

    class Spy(nn.Conv2d):
        def forward(self, input):
            seen.append((len(input), self.training, torch.is_grad_enabled()))
            return super().forward(input)

    net = cnnlab.create("model", word, (1, 12, 12), 3, conv=Spy)
    assert seen == [(1, False, False)] * len(conv.layers(net))


@pytest.mark.parametrize("word", ["convnet", "singla"])
def test_weights_are_those_the_convolution_gave_itself(word):
    class Fives(nn.Conv2d):
        def reset_parameters(self):
            nn.init.constant_(self.weight, 5.0)

    net = cnnlab.create("model", word, (1, 12, 12), 3, conv=Fives)
    layers = [layer for layer in net.features if isinstance(layer, Fives)]
    assert len(layers) == 4
    assert all((layer.weight == 5).all() for layer in layers)


# convnet: INPUT -> [[CONV -> ACT]*n -> POOL?]*m -> [FC -> ACT]*k -> FC


def test_convnet_without_blocks_and_hidden_layers_is_a_linear_classifier():
    net = ConvNet((1, 8, 8), 10, filters=[])
    assert kinds(net.features) == []
    assert kinds(net.classifier) == ["Flatten", "Linear"]
    assert parameters(net) == 64 * 10 + 10


def test_convnet_follows_the_grammar():
    net = ConvNet((1, 8, 8), 10, filters=[4, 8], convs=2, dense=[16, 12])
    block = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(net.features) == block * 2
    assert kinds(net.classifier) == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    convolutions = (9 + 1) * 4 + (9 * 4 + 1) * 4 + (9 * 4 + 1) * 8 + (9 * 8 + 1) * 8
    assert parameters(net) == convolutions + (8 * 2 * 2 + 1) * 16 + (16 + 1) * 12 + (12 + 1) * 10


def test_convnet_puts_batch_norm_before_the_activation_and_dropout_before_dense_layers():
    net = ConvNet((1, 8, 8), 10, filters=[4], convs=1, dense=[6], batch_norm=True, dropout=0.5)
    assert kinds(net.features) == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert kinds(net.classifier) == ["Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert net.features[0].bias is None
    assert net.features[1].num_batches_tracked == 0
    assert net.classifier[1].p == 0.5


def test_convnet_without_pools_keeps_the_size_of_the_map():
    net = ConvNet((1, 5, 7), 2, filters=[3], convs=1, kernel_size=5, pool=False)
    assert net.features(torch.zeros(1, 1, 5, 7)).shape == (1, 3, 5, 7)
    assert parameters(net) == (25 + 1) * 3 + (3 * 5 * 7 + 1) * 2


@pytest.mark.parametrize(
    ("activation", "times"), [(CReLU, 2), (functools.partial(Maxout, k=4), 0.25), (nn.ReLU, 1)]
)
def test_the_next_layer_takes_as_many_channels_as_the_activation_gives(activation, times):
    net = ConvNet((1, 8, 8), 10, activation=activation, filters=[8], dense=[12])
    after_one, after_dense = int(8 * times), int(12 * times)
    convolutions = (9 + 1) * 8 + (9 * after_one + 1) * 8
    assert parameters(net) == convolutions + (after_one * 4 * 4 + 1) * 12 + (after_dense + 1) * 10


def test_lazy_convolutions_get_their_size():
    def lazy(in_channels, out_channels, *args, **kwargs):
        return nn.LazyConv2d(out_channels, *args, **kwargs)

    assert parameters(ConvNet((1, 8, 8), 10, conv=lazy)) == parameters(ConvNet((1, 8, 8), 10))


def test_convnet_takes_the_smallest_image_that_its_pools_allow():
    assert ConvNet((1, 4, 4), 10, filters=[2, 2])(torch.zeros(1, 1, 4, 4)).shape == (1, 10)
    with pytest.raises(ValueError, match=r"^filters must name at most 1 blocks .* 3x9 images, got \[2, 2\]$"):
        ConvNet((1, 3, 9), 10, filters=[2, 2])


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"filters": 32}, "filters must be a list of whole numbers >= 1, got 32"),
        ({"filters": [8, 0]}, "filters must be a whole number >= 1, got 0"),
        ({"dense": [2.5]}, "dense must be a whole number >= 1, got 2.5"),
        ({"convs": 0}, "convs must be a whole number >= 1, got 0"),
        ({"kernel_size": -3}, "kernel_size must be a whole number >= 1, got -3"),
        ({"pool": "no"}, "pool must be true or false, got 'no'"),
        ({"batch_norm": 1}, "batch_norm must be true or false, got 1"),
        ({"dropout": -0.1}, "dropout must be a number >= 0, got -0.1"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1, but got 1.5"),
        ({"filters": [3], "activation": Maxout}, "k must divide the number of channels, 3, got 2"),
    ],
)
def test_convnet_refuses_in_one_line(knobs, line):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        ConvNet((1, 8, 8), 10, **knobs)
    assert str(refusal.value) == line


# singla


def test_singla_has_the_published_sizes():
    net = Singla((3, 32, 32), 10)
    assert [parameters(layer) for layer in net.features if parameters(layer)] == [2432, 9248, 18496, 36928]
    assert [parameters(layer) for layer in net.classifier if parameters(layer)] == [1_180_160, 5_130]
    sizes, images = [], torch.zeros(1, 3, 32, 32)
    for layer in net.features:
        images = layer(images)
        if not isinstance(layer, nn.ReLU):
            sizes.append(tuple(images.shape[1:]))
    assert sizes == [(32, 32, 32), (32, 30, 30), (32, 15, 15), (64, 15, 15), (64, 13, 13), (64, 6, 6)]


def test_singla_takes_10x10_and_refuses_less():
    assert Singla((1, 10, 10), 4)(torch.zeros(2, 1, 10, 10)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"^input_shape must be 10x10 or more, got 28x9$"):
        Singla((1, 28, 9), 4)


def test_singla_doubles_the_inputs_after_crelu():
    net = Singla((3, 32, 32), 10, activation=CReLU)
    inputs = [layer.weight.shape[1] for layer in [*net.features, *net.classifier] if hasattr(layer, "weight")]
    assert inputs == [3, 64, 64, 128, 2 * 2304, 2 * 512]


# linear


def test_linear_uses_neither_convolution_nor_activation():
    def never(*args, **kwargs):
        raise AssertionError

    net = LinearClassifier((3, 4, 5), 6, conv=never, activation=never)
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(net(images), images.reshape(2, 60) @ net.dense.weight.T + net.dense.bias)
