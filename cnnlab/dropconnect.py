"""A forward pass that ignores random weights."""

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from cnnlab.regularizer import free_weights


def dropconnect(net: nn.Module, input: Tensor, p: float) -> Tensor:
    """What a net in training mode gives with each weight of its layers set to 0 with probability p.

    The others are divided by 1 - p, so that in eval mode, where all weights count, nothing is to be rescaled.
    Biases and norms are kept. With p = 0 it is the net itself.

    Source: Wan et al. 2013, Regularization of Neural Networks using DropConnect.
    Differs: one mask for the whole batch, not one for each example; the mean of the weights in place of
    sampling from a Gaussian in eval mode; convolutions too.
    Shape: those of the net.

    >>> net = nn.Linear(1000, 1, bias=False)
    >>> net.weight.data.fill_(1.0).shape
    torch.Size([1, 1000])
    >>> import torch
    >>> total = dropconnect(net, torch.eye(1000), 0.75)  # each weight alone
    >>> sorted(set(total.flatten().tolist()))  # 1 / (1 - 0.75)
    [0.0, 4.0]
    >>> dropconnect(net.eval(), torch.ones(1000), 0.75).item()
    1000.0
    """
    if not (p and net.training):
        return net(input)
    weights = ((name, weight) for name, layer, weight in free_weights(net) if layer.training)
    masked = {name: F.dropout(weight, p) for name, weight in weights}
    return functional_call(net, masked, (input,))
