"""What enters a layer of a network: the features that all layers before it make of an image."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 250


class _Reached(Exception):
    """The layer was asked for its output; its input is the features."""


def run_until(net: nn.Module, layer: nn.Module, input: Tensor) -> Tensor:
    """The input of a layer within a net, differentiable; nothing behind it is computed.

    >>> net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 1))
    >>> run_until(net, net[2], torch.tensor([[[-1.0, 2.0]]]))
    tensor([[0., 2.]])
    """
    reached: list[Tensor] = []

    def stop(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        reached.append(inputs[0])
        raise _Reached

    hook = layer.register_forward_pre_hook(stop)
    try:
        net(input)
    except _Reached:
        return reached[0]
    finally:
        hook.remove()
    raise ValueError(f"layer must be one that the net's forward pass asks, got {type(layer).__name__}")


@torch.no_grad()
def entering(net: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """What enters a layer for many images, batch by batch in eval mode; the net is left as it was."""
    training = net.training
    net.eval()
    features = torch.cat([run_until(net, layer, batch) for batch in images.split(BATCH)])
    net.train(training)
    return features


@torch.no_grad()
def in_order(net: nn.Module, input: Tensor, *, whole: Collection[nn.Module]) -> list[nn.Module]:
    """A net's innermost modules in the order in which they are first asked, those of `whole` undivided.

    >>> in_order(nn.Sequential(nn.Tanh(), nn.Sequential(nn.ReLU())), torch.ones(1), whole=[])
    [Tanh(), ReLU()]
    """
    inside = {part for module in whole for part in module.modules() if part is not module}
    asked: dict[nn.Module, None] = {}  # a set that keeps the order

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        asked[module] = None

    hooks = [
        module.register_forward_pre_hook(note)
        for module in set(net.modules()) - inside
        if module in whole or next(module.children(), None) is None
    ]
    net(input)
    for hook in hooks:
        hook.remove()
    return list(asked)
