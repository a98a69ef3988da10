"""Convolutions without training: what is frozen stays, costs no optimiser state, lets gradients through."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cnnlab
from cnnlab.conv.frozen import RandomConv2d


def test_random_filters_are_those_of_nn_conv2d() -> None:
    torch.manual_seed(0)
    random = RandomConv2d(3, 8, 5, groups=1)
    torch.manual_seed(0)
    stock = nn.Conv2d(3, 8, 5)
    assert torch.equal(random.weight, stock.weight) and torch.equal(random.bias, stock.bias)


def test_an_initializers_rule_draws_the_frozen_filters() -> None:
    conv = RandomConv2d(3, 8, 5)
    conv.initialize(lambda weight, bias: nn.init.constant_(weight, 0.5))
    assert (conv.weight == 0.5).all() and not conv.weight.requires_grad


@pytest.mark.parametrize(
    ("word", "knobs", "trained"),
    [
        ("random", {}, []),
        ("gabor", {}, []),
        ("gabor", {"trainable": True}, ["amplitude", "bias", "functions"]),
        ("kmeans", {}, ["bias"]),
        ("kmeans", {"bias": False}, []),
    ],
)
def test_training_moves_what_is_trainable_and_nothing_else(
    word: str, knobs: dict[str, Any], trained: list[str]
) -> None:
    torch.manual_seed(0)
    conv = cnnlab.create("conv", word, 3, 8, 3, **knobs)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), conv, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(8, 1, 12, 12)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), torch.arange(8)).backward()
        optimizer.step()
    moved = [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]
    assert sorted(moved) == ["0.bias", "0.weight", *(f"1.{name}" for name in trained)]
    assert len(optimizer.state) == len(moved)
    assert sum(p.grad is not None for p in net.parameters()) == len(moved)
