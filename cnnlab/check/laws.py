"""The laws of the chosen convolution: it is what its class says."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlab.check.finding import Finding, skipped
from cnnlab.check.subject import Subject
from cnnlab.features import entering

EXAMPLES = 3


def check(subject: Subject) -> Finding:
    """Each kind of convolution in the network keeps the laws that its class claims.

    Examples do not mix, zeros do no harm, `linear`, `equivariant` and `is_convolution` hold, `violation()`
    is within its tolerance.
    """
    task = copy.deepcopy(subject.warm[0] if subject.trainable else subject.untrained)
    kinds = {(type(layer), layer.kernel_size, layer.stride): name for name, layer in task.convs.items()}
    if not kinds:
        return skipped("the network has no convolution")
    pixels = task.preprocessing(subject.examples(EXAMPLES)[0])
    inputs = {name: entering(task.net, task.convs[name], pixels) for name in kinds.values()}
    for name, x in inputs.items():
        for law in broken(task.convs[name].eval(), x):
            return Finding("fail", name, f"{type(task.convs[name]).__name__} breaks a law: {law}")
    names = ", ".join(sorted({kind.__name__ for kind, *_ in kinds}))
    return Finding("pass", f"{len(kinds)}", f"kinds of convolution keep their laws: {names}")


def broken(layer: Any, x: Tensor) -> Iterator[str]:
    """The laws that a convolution breaks on an input."""
    tolerance = getattr(layer, "tolerance", 1e-5)
    if hasattr(layer, "violation") and not float(layer.violation()) <= tolerance:
        yield f"violation() is {float(layer.violation()):.1e}, more than {tolerance:.0e}"
    layer, x = layer.double(), x.double()
    with torch.no_grad():
        y = layer(x)
        if not close(y, torch.cat([layer(example) for example in x.split(1)])):
            yield "examples of a batch do not mix"
        if getattr(layer, "linear", False) and not is_linear(layer, x):
            yield "`linear`: f(2a - 3b) = 2 f(a) - 3 f(b), but for the bias"
        if getattr(layer, "equivariant", True) and not is_equivariant(layer):
            yield "`equivariant`: a shifted image gives a shifted output"
        if getattr(layer, "is_convolution", False) and layer.padding_mode == "zeros":
            geometry = layer.stride, layer.padding, layer.dilation, layer.groups
            if not close(y, F.conv2d(x, layer.weight, layer.bias, *geometry)):
                yield "`is_convolution`: it is F.conv2d with its weight"
    zeros = torch.zeros_like(x).requires_grad_()
    gradients = torch.autograd.grad(layer(zeros).sum(), [zeros, *_trained(layer)], allow_unused=True)
    if not all(gradient is None or gradient.isfinite().all() for gradient in gradients):
        yield "zeros give finite gradients"


def is_linear(layer: nn.Module, x: Tensor) -> bool:
    a, b = x[:1], x[1:2]
    zero = layer(torch.zeros_like(a))
    return close(layer(2 * a - 3 * b) - zero, 2 * (layer(a) - zero) - 3 * (layer(b) - zero))


def is_equivariant(layer: Any) -> bool:
    """A small object on zeros, which look the same in every padding, moves by one stride."""
    reach = max(
        d * (k - 1) + s for k, s, d in zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    )
    side = 4 * reach + 24  # the object's response stays away from the borders
    down, right = layer.stride
    lots = torch.Generator().manual_seed(0)
    image = torch.zeros(1, layer.in_channels, side + down, side + right, dtype=torch.float64)
    middle = slice(side // 2, side // 2 + 3)
    image[..., middle, middle] = torch.randn(1, layer.in_channels, 3, 3, generator=lots, dtype=torch.float64)
    here, there = layer(image[..., :-down, :-right]), layer(image[..., down:, right:])
    top, left = here.shape[2] // 4, here.shape[3] // 4  # a chain of layers sees the borders behind its biases
    return close(here[..., top + 1 : -top, left + 1 : -left], there[..., top : -top - 1, left : -left - 1])


def close(actual: Tensor, expected: Tensor) -> bool:
    return bool(((actual - expected).abs() <= 1e-6 * max(1.0, float(expected.abs().max()))).all())


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]
