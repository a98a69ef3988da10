"""The model with its chosen parts; what enters a layer."""

import logging

import pytest
import torch
from torch import nn

from cnnlab.__main__ import command
from cnnlab.activation import CReLU
from cnnlab.compose import Composer
from cnnlab.conv import layers
from cnnlab.features import entering, in_order, run_until
from cnnlab.network import build_net


def net_of(*lines: str, shape=(1, 8, 8)) -> nn.Module:
    return build_net(Composer().one(lines), shape, classes=10)


def activations(net: nn.Module) -> list[str]:
    return [type(m).__name__ for m in net.modules() if isinstance(m, nn.ReLU | CReLU | nn.PReLU)]


@pytest.mark.parametrize("k", [0, 1, 3, 99])
def test_the_first_layers_alone_have_the_chosen_activation(k):
    net = net_of("activation=crelu", f"activation.first_layers={k}", "model.dense=[16]")
    chosen = min(k, 5)
    assert activations(net) == ["CReLU"] * chosen + ["ReLU"] * (5 - chosen)
    filters = [32, 32, 64, 64]
    doubled = [2 * f if i < k else f for i, f in enumerate(filters)]
    assert [layer.in_channels for layer in layers(net).values()] == [1, *doubled[:-1]]


def test_without_a_number_every_layer_has_it():
    assert activations(net_of("activation=crelu")) == ["CReLU"] * 4


@pytest.mark.parametrize("line", ["pooling=l2", "activation=prelu", "conv=decoupled_tanh"])
def test_a_choice_that_a_model_has_no_use_for_is_said_to_change_nothing(line, caplog):
    with caplog.at_level(logging.WARNING, "cnnlab"):
        net_of("model=linear", line)
    assert [r.getMessage() for r in caplog.records] == [
        f"model=linear has no {line.partition('=')[0]}: {line} changes nothing"
    ]


@pytest.mark.parametrize("value", ["-1", "1.5", "true", "two"])
def test_first_layers_must_be_a_number_of_layers(value, tmp_path, capsys):
    assert command([f"activation.first_layers={value}", f"output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("activation=relu activation.first_layers=") and error.count("\n") == 1


def test_what_enters_a_layer_is_what_the_layers_before_it_make():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5), nn.Tanh(), nn.Linear(3, 2))
    images = torch.randn(7, 1, 2, 2)
    expected = net[1](images.flatten(1)).tanh()  # without dropout
    torch.testing.assert_close(entering(net, net[4], images), expected)
    assert net.training and not net[4]._forward_pre_hooks
    assert in_order(net, images, whole=[]) == list(net)


def test_a_layer_that_is_never_asked_has_no_features():
    with pytest.raises(ValueError, match="layer must be one that the net's forward pass asks"):
        run_until(nn.Sequential(nn.ReLU()), nn.Tanh(), torch.zeros(1))
