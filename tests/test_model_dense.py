"""dense_as_conv: the dense layers slide over a larger image, with the numbers of cut-out windows."""

import functools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import cnnlab
from cnnlab import conv, cost
from cnnlab.activation import CReLU, Maxout
from cnnlab.model.convnet import ConvNet
from cnnlab.model.dense import DenseLayers, SlidingLinear
from cnnlab.model.mlp import MLP
from cnnlab.registry import node

WORDS = [word for word in cnnlab.available("model") if "dense_as_conv" in node("model", word)]
SHAPE = (2, 39, 40)


def both(word: str, **knobs: object) -> list[nn.Module]:
    """The same network with flat and with sliding dense layers."""
    nets = []
    for sliding in (False, True):
        torch.manual_seed(0)
        nets.append(
            cnnlab.create("model", word, SHAPE, 3, width=0.125, dense_as_conv=sliding, **knobs).eval()
        )
    return nets


@pytest.mark.parametrize("word", WORDS)
def test_it_is_the_same_network_on_an_image_of_its_size(word):
    flat, sliding = both(word)
    images = torch.rand(2, *SHAPE)
    assert list(flat.state_dict()) == list(sliding.state_dict())
    assert all(torch.equal(*pair) for pair in zip(flat.parameters(), sliding.parameters(), strict=True))
    torch.testing.assert_close(sliding(images), flat(images))
    sliding.load_state_dict(flat.state_dict())


@pytest.mark.parametrize("word", WORDS)
def test_it_costs_the_same_and_is_no_convolution_variant(word):
    flat, sliding = both(word)
    assert cost.macs(flat, SHAPE) == cost.macs(sliding, SHAPE)
    assert list(conv.layers(flat)) == list(conv.layers(sliding))
    assert not any(isinstance(layer, SlidingLinear) for layer in conv.layers(sliding).values())


@pytest.mark.parametrize("word", WORDS)
def test_a_larger_image_gives_a_map_of_scores_and_costs_what_torch_counts(word):
    sliding, larger = both(word)[1], (2, 80, 104)
    scores = sliding(torch.zeros(2, *larger))
    assert scores.shape[:2] == (2, 3) and scores.shape[2] > 1 and scores.shape[3] > scores.shape[2]

    def flops(images: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            sliding(torch.zeros(images, *larger))
        return counter.get_total_flops()

    assert cost.macs(sliding, larger) == (flops(2) - flops(1)) // 2


def windows(net: nn.Module, images: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """The scores of every window, cut out one by one."""
    rows, columns = ((images.shape[i + 2] - size[i]) // stride + 1 for i in (0, 1))
    scores = [
        net(images[:, :, stride * i : stride * i + size[0], stride * j : stride * j + size[1]])
        for i in range(rows)
        for j in range(columns)
    ]
    return torch.stack(scores, 2).unflatten(2, (rows, columns))


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("activation", [CReLU, functools.partial(Maxout, k=2), nn.PReLU])
@pytest.mark.parametrize("larger", [(14, 18), (26, 15), (23, 33)], ids=str)
def test_sliding_gives_the_scores_of_the_windows(pooling, activation, larger):
    torch.manual_seed(0)
    parts = {"pooling": functools.partial(cnnlab.create, "pooling", pooling), "activation": activation}
    knobs = {"filters": [4, 6], "convs": 1, "padding": "valid", "dense": [8, 4], "dropout": 0.5}
    net = ConvNet((2, 14, 14), 3, **parts, **knobs, batch_norm=True, dense_as_conv=True).double().eval()
    images = torch.rand(2, 2, *larger, dtype=torch.float64)
    expected = windows(net, images, (14, 14), stride=4)  # two pools of stride 2
    scores = net(images) if expected.numel() > 6 else net(images)[..., None, None]
    torch.testing.assert_close(scores, expected)


def test_an_mlp_slides_pixel_by_pixel():
    net = MLP((3, 4, 5), 2, dense=[7, 6], dense_as_conv=True)
    images = torch.rand(2, 3, 9, 6)
    torch.testing.assert_close(net(images), windows(net, images, (4, 5), stride=1))


def test_the_flat_layers_of_another_checkpoint_slide():
    flat, sliding = DenseLayers((2, 3, 3), [4], 5), DenseLayers((2, 3, 3), [4], 5, as_conv=True)
    sliding.load_state_dict(flat.state_dict())
    images = torch.rand(2, 2, 4, 6)
    torch.testing.assert_close(sliding(images), windows(flat, images, (3, 3), stride=1))


@pytest.mark.parametrize("as_conv", [False, True])
def test_dropout_follows_the_hidden_layers_alone(as_conv):
    layers = DenseLayers((2, 3, 3), [4, 6], 5, dropout=0.5, as_conv=as_conv)
    kinds = [type(layer).__name__ for layer in layers]
    dense = "SlidingLinear" if as_conv else "Linear"
    assert kinds[1:] == [dense, "ReLU", "Dropout", dense, "ReLU", "Dropout", dense]


@pytest.mark.parametrize("pooling", ["global_average", "adaptive"])
def test_a_map_of_one_size_cannot_be_slid_over(pooling):
    pool = functools.partial(cnnlab.create, "pooling", pooling)
    with pytest.raises(ValueError, match=r"^dense_as_conv must be false with a pooling .*, got true$"):
        ConvNet((1, 16, 16), 3, pooling=pool, dense_as_conv=True)
    ConvNet((1, 16, 16), 3, pooling=pool)


def test_bf16_autocast_agrees():
    net = both("convnet")[1]
    images = torch.rand(2, 2, 60, 50)
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(images)
    torch.testing.assert_close(scores.float(), net(images), atol=0.02, rtol=0.02)
