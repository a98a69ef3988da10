"""What every model promises: its parts are the factories', its sizes fit, it refuses in one line."""

import functools
import inspect

import pytest
import torch
from torch import nn

import cnnlab
from cnnlab import conv
from cnnlab.activation import CReLU, Maxout
from cnnlab.model.linear import LinearClassifier
from cnnlab.registry import locate, node

MODELS = cnnlab.available("model")
TRAINED = [word for word in MODELS if not hasattr(locate(node("model", word)["_target_"]), "memorize")]
DENSE = ("linear", "mlp", "two_layer", "nearest_neighbor")  # without convolutions
SHAPE = (1, 39, 40)  # the smallest that AlexNet takes
ACTIVATIONS = [nn.ReLU, CReLU, functools.partial(Maxout, k=2), nn.PReLU]


def tiny(word: str, *args: object, **parts: object) -> nn.Module:
    """A model with few channels, where it has a width."""
    width = {"width": 0.125} if "width" in node("model", word) else {}
    return cnnlab.create("model", word, *(args or (SHAPE, 3)), **width, **parts)


@pytest.mark.parametrize("word", MODELS)
def test_every_model_takes_the_same_parts(word):
    parameters = inspect.signature(locate(node("model", word)["_target_"])).parameters
    assert list(parameters)[:5] == ["input_shape", "classes", "conv", "activation", "pooling"]
    assert all(parameters[part].kind is inspect.Parameter.KEYWORD_ONLY for part in list(parameters)[2:])


@pytest.mark.parametrize("word", MODELS)
def test_scores_have_one_column_per_class(word):
    net = tiny(word, (3, 43, 57), 7)
    assert net(torch.zeros(2, 3, 43, 57)).shape == (2, 7)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=["relu", "crelu", "maxout", "prelu"])
@pytest.mark.parametrize("word", TRAINED)
def test_every_parameter_has_a_size_and_gets_a_gradient(word, activation):
    torch.manual_seed(0)
    net = tiny(word, activation=activation)
    net(torch.rand(8, *SHAPE)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


@pytest.mark.parametrize("word", MODELS)
def test_examples_do_not_mix(word):
    net = tiny(word).eval()
    images = torch.rand(3, *SHAPE)
    torch.testing.assert_close(net(images), torch.cat([net(image.unsqueeze(0)) for image in images]))


@pytest.mark.parametrize("word", MODELS)
def test_channels_last_changes_nothing(word):
    net = tiny(word).eval()
    images = torch.rand(2, *SHAPE)
    expected = net(images)
    last = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("word", MODELS)
def test_models_are_built_on_the_meta_device(word):
    with torch.device("meta"):
        net = cnnlab.create("model", word, (3, 64, 64), 10)
        assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
    assert all(parameter.is_meta for parameter in net.parameters())


@pytest.mark.parametrize("word", MODELS)
def test_building_runs_one_image_in_eval_mode_without_gradients(word):
    seen = []

    class Spy(nn.Conv2d):
        def forward(self, input):
            seen.append((len(input), self.training, torch.is_grad_enabled()))
            return super().forward(input)

    net = tiny(word, conv=Spy)
    assert seen == [(1, False, False)] * len(conv.layers(net))


@pytest.mark.parametrize("word", TRAINED)
def test_activations_and_poolings_are_built_once_each_in_the_order_of_the_layers(word):
    built, used = [], []

    class Part(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module
            built.append(self)

        def forward(self, input):
            used.append(self)
            return self.module(input)

    net = tiny(word, activation=lambda: Part(nn.ReLU()), pooling=lambda: Part(nn.MaxPool2d(2)))
    used.clear()  # the dry run
    net(torch.rand(2, *SHAPE))
    assert used == built
    order = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear | Part)]
    last_conv = max((i for i, m in enumerate(order) if isinstance(m, nn.Conv2d)), default=-1)
    first_dense = next(i for i, m in enumerate(order) if isinstance(m, nn.Linear))
    assert last_conv < first_dense


@pytest.mark.parametrize("word", [word for word in MODELS if word not in DENSE])
def test_weights_are_those_the_convolution_gave_itself(word):
    class Fives(nn.Conv2d):
        def reset_parameters(self):
            nn.init.constant_(self.weight, 5.0)

    layers = conv.layers(tiny(word, conv=Fives))
    assert layers
    assert all((layer.weight == 5).all() for layer in layers.values())


@pytest.mark.parametrize("word", MODELS)
def test_convolutions_without_a_size_get_one(word):
    def lazy(in_channels, out_channels, *args, **kwargs):
        return nn.LazyConv2d(out_channels, *args, **kwargs)

    shapes = [[p.shape for p in tiny(word, **parts).parameters()] for parts in ({"conv": lazy}, {})]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("word", MODELS)
def test_the_parts_may_have_another_number_of_channels(word):
    parts = {"pooling": functools.partial(Maxout, k=2), "activation": CReLU}
    assert tiny(word, **parts)(torch.zeros(2, *SHAPE)).shape == (2, 3)


@pytest.mark.parametrize("word", MODELS)
def test_a_convolution_may_bring_a_dilation(word):
    net = tiny(word, (1, 44, 90), 3, conv=functools.partial(nn.Conv2d, dilation=(1, 2)))
    assert net(torch.zeros(2, 1, 44, 90)).shape == (2, 3)


@pytest.mark.parametrize("word", [word for word in MODELS if word not in (*DENSE, "convnet", "resnet")])
@pytest.mark.parametrize("pooling", ["max", "overlapping_max", "l2"])
def test_the_smallest_image_is_named_where_one_is_too_small(word, pooling):
    pool = functools.partial(cnnlab.create, "pooling", pooling)
    with pytest.raises(ValueError, match=r"^input_shape must be (\d+)x\1 or more, got 3x90$") as refusal:
        tiny(word, (1, 3, 90), 3, pooling=pool)
    side = int(str(refusal.value).split()[3].split("x")[0])
    assert tiny(word, (1, side, side), 3, pooling=pool).eval()(torch.zeros(1, 1, side, side)).shape == (1, 3)
    with pytest.raises(ValueError, match=f"^input_shape must be {side}x{side} or more"):
        tiny(word, (1, side, side - 1), 3, pooling=pool)


@pytest.mark.parametrize("word", [word for word in MODELS if "width" in node("model", word)])
def test_width_multiplies_every_layer_but_the_last(word):
    with torch.device("meta"):
        nets = [cnnlab.create("model", word, (1, 64, 64), 3, width=width) for width in (1.0, 0.5)]
    whole, half = ([p.shape[0] for p in net.parameters() if p.dim() > 1] for net in nets)
    assert [size / 2 for size in whole[:-1]] == half[:-1]
    assert whole[-1] == half[-1] == 3
    for width, got in ((0, "0"), (float("inf"), "inf"), (True, "True")):
        with pytest.raises(ValueError, match=f"^width must be .*, got {got}$"):
            cnnlab.create("model", word, (1, 64, 64), 3, width=width)


@pytest.mark.parametrize(
    ("word", "knobs", "line"),
    [
        ("mlp", {"dense": 3}, "dense must be a list of whole numbers >= 1, got 3"),
        ("mlp", {"dropout": 2}, "dropout must be a number >= 0 and <= 1, got 2"),
        ("all_cnn_c", {"input_dropout": 1.5}, "input_dropout must be a number >= 0 and <= 1, got 1.5"),
        ("resnet", {"depth": 18}, "depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110), got 18"),
        ("resnet", {"depth": 2}, "depth must be a whole number >= 8, got 2"),
        ("resnet", {"batch_norm": None}, "batch_norm must be true or false, got None"),
        ("alexnet", {"groups": 0}, "groups must be a whole number >= 1, got 0"),
        ("singla", {"dense_as_conv": "yes"}, "dense_as_conv must be true or false, got 'yes'"),
    ],
)
def test_models_refuse_in_one_line(word, knobs, line):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        cnnlab.create("model", word, SHAPE, 3, **knobs)
    assert str(refusal.value) == line


def test_what_a_convolution_refuses_passes_through():
    class Unstrided(nn.Conv2d):
        def __init__(self, *args, stride=1, **kwargs):
            if stride != 1:
                raise NotImplementedError(f"Unstrided: stride must be 1, got {stride}")
            super().__init__(*args, **kwargs)

    with pytest.raises(NotImplementedError, match=r"^Unstrided: stride must be 1, got 2$"):
        tiny("resnet", conv=Unstrided)


@pytest.mark.parametrize("pooling", [lambda: nn.AdaptiveMaxPool2d(1), lambda: nn.MaxPool2d(0)])
def test_what_no_image_is_large_enough_for_is_left_to_torch_to_say(pooling):
    with pytest.raises(RuntimeError, match=r"^(Calculated padded input size.*|stride should not be zero)$"):
        tiny("singla", pooling=pooling)


def test_a_failure_that_is_not_about_the_size_is_not_blamed_on_it():
    class Broken(nn.ReLU):
        def forward(self, input):
            if input.is_meta:
                return input
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        tiny("singla", activation=Broken)


def test_linear_uses_no_part():
    def never(*args, **kwargs):
        raise AssertionError

    net = LinearClassifier((3, 4, 5), 6, conv=never, activation=never, pooling=never)
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(net(images), images.reshape(2, 60) @ net.dense.weight.T + net.dense.bias)
