"""What tells of a layer how it trains: functions of its weights, gradients and outputs, on their device."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cnnlab import conv
from cnnlab.conv.precision import wide

SAMPLE = 2**16  # values that a histogram counts of a larger tensor
FAR = 1e6  # an input at which a bounded activation is at its bound
MARGIN = 0.01  # of an activation's range: closer to a bound it is saturated


def named_layers(net: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and dense layers of a net as conv1, conv2, ..., dense1, ..., in the net's order.

    >>> list(named_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 9), nn.Linear(9, 3))))
    ['conv1', 'dense1', 'dense2']
    """
    convs = list(conv.layers(net).values())
    inside = {module for layer in convs for module in layer.modules()}
    dense = [module for module in net.modules() if isinstance(module, nn.Linear) and module not in inside]
    return {
        f"{kind}{number}": layer
        for kind, layers in (("conv", convs), ("dense", dense))
        for number, layer in enumerate(layers, 1)
    }


def trained(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters of a layer that are trained, but for its biases."""
    return [p for name, p in layer.named_parameters() if p.requires_grad and not name.endswith("bias")]


def joined(tensors: Iterable[Tensor]) -> Tensor:
    """All values in one row, at least float32.

    >>> joined([torch.ones(2, 1), torch.zeros(1)])
    tensor([1., 1., 0.])
    """
    return torch.cat([wide(tensor.detach()).flatten() for tensor in tensors])


@torch.no_grad()
def weights(layer: nn.Module) -> Tensor:
    """The effective weight of a layer in one row; where there is none, all parameters but the biases."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor):
        return joined([weight])
    return joined(p for name, p in layer.named_parameters() if not name.endswith("bias"))


def update_ratio(before: Tensor, after: Tensor) -> Tensor:
    """|after - before| / |before|: how large a step was against what it changed. Near 1e-3 is healthy.

    Source: Karpathy et al., CS231n notes, "Ratio of weights:updates".

    >>> update_ratio(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.5]))
    tensor(0.1000)
    >>> update_ratio(torch.zeros(2), torch.zeros(2))  # inf only where zeros were moved
    tensor(0.)
    """
    step = torch.linalg.vector_norm(after - before)
    return torch.where(step == 0, step, step / torch.linalg.vector_norm(before))


def near_zero(weight: Tensor, share: float) -> Tensor:
    """The fraction of weights that are at most `share` of the largest one.

    >>> near_zero(torch.tensor([10.0, -0.01, 0.02, 0.0]), 1e-3)
    tensor(0.5000)
    """
    size = weight.abs()
    return (size <= share * size.max()).float().mean()


def dead(output: Tensor) -> Tensor:
    """The fraction of units (channels of a map) whose output is one value for the whole batch.

    Shape: (N, units, ...) -> ().

    >>> dead(torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    tensor(0.5000)
    """
    others = [dim for dim in range(output.dim()) if dim != 1]
    return (output.amin(others) == output.amax(others)).float().mean()


@torch.no_grad()
def bounds(activation: nn.Module, input: Tensor) -> tuple[float, float] | None:
    """The least and the largest output of an activation, as it is far from 0; None where it is unbounded.

    >>> bounds(nn.Sigmoid(), torch.zeros(5, 3)), bounds(nn.ELU(), torch.zeros(5, 3))
    ((0.0, 1.0), None)
    """
    far = torch.full_like(input[:1], FAR)
    low, high = (wide(activation.forward(x)).mean().item() for x in (-far, far))
    return (low, high) if low < high and max(-low, high) < FAR / 1000 else None


def saturated(output: Tensor, low: float, high: float) -> Tensor:
    """The fraction of outputs within 1 % of the range from a bound.

    >>> saturated(torch.tensor([-1.0, -0.97, 0.5, 0.99]), -1.0, 1.0)
    tensor(0.5000)
    """
    margin = MARGIN * (high - low)
    return ((output <= low + margin) | (output >= high - margin)).float().mean()


def histogram(values: Tensor, bins: int) -> Tensor:
    """The least value, the largest one, and the counts in equal bins between them.

    At most 65,536 values are counted, evenly taken; nan and inf are not.
    Shape: any -> (2 + bins,).

    >>> histogram(torch.tensor([0.0, 1.0, 1.0, 4.0]), 4)
    tensor([0., 4., 1., 2., 0., 1.])
    """
    values = values.detach().flatten()
    values = wide(values[:: values.numel() // SAMPLE | 1])  # an odd stride meets every column of a map
    finite = values.isfinite()
    low = torch.where(finite, values, torch.inf).amin()
    high = torch.where(finite, values, -torch.inf).amax()
    span = (high - low).clamp_min(torch.finfo(values.dtype).tiny)
    place = ((values - low) / span * bins).nan_to_num(0).clamp(0, bins - 1)
    index = torch.where(finite, place, bins).long()  # the bin after the last is for what does not count
    # Unlike histc the same on every device, and unlike bincount without waiting for it.
    counts = values.new_zeros(bins + 1).scatter_add_(0, index, torch.ones_like(values))[:bins]
    return torch.cat([torch.stack([low, high]), counts])
