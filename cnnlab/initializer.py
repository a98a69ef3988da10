"""Initial weights: rules that draw a layer's weight and bias in place."""

import math

import torch
from torch import Tensor


@torch.no_grad()
def glorot_uniform_(weight: Tensor, bias: Tensor | None = None) -> None:
    """Draw weight and bias from U(-a, a), a = sqrt(6 / (fan_in + fan_out)), the bias as one more input.

    fan_in = rows of the layer's matrix, [w; b]; fan_out = its columns, the filters.

    Source: Glorot & Bengio 2010; with the bias in the matrix: Singla 2017, orthogonal-convolution.
    Shape: weight (out, in, ...), bias (out,)

    >>> weight, bias = torch.empty(3, 2, 1, 1), torch.empty(3)
    >>> glorot_uniform_(weight, bias)  # a = sqrt(6 / (2 + 1 + 3)) = 1
    >>> bool((weight.abs() <= 1).all() and (bias.abs() <= 1).all() and weight.abs().max() > 0.1)
    True
    """
    filters, rows = len(weight), weight[0].numel() + (bias is not None)
    limit = math.sqrt(6 / (rows + filters))
    weight.uniform_(-limit, limit)
    if bias is not None:
        bias.uniform_(-limit, limit)
