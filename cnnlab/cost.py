"""What a network costs: parameters, and multiply-accumulates for one image."""

from typing import Any

import torch
from torch import nn

from cnnlab import conv


def parameters(net: nn.Module) -> int:
    """The number of parameters, frozen ones included.

    >>> parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in net.parameters())


@torch.no_grad()
def macs(net: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image, by one pass over zeros.

    >>> macs(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5)), (1, 4, 4))  # 2*2*2*9 + 8*5
    112
    """
    total = 0

    def count_conv(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if hasattr(layer, "macs"):
            total += layer.macs(tuple(inputs[0].shape[-2:]))
        else:
            total += output[0].numel() * layer.weight[0].numel()

    def count_linear(layer: nn.Linear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count_conv) for layer in conv.layers(net).values()]
    hooks += [m.register_forward_hook(count_linear) for m in net.modules() if isinstance(m, nn.Linear)]
    training = net.training
    device = next((parameter.device for parameter in net.parameters()), None)
    net.eval()(torch.zeros(1, *input_shape, device=device))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return total
