"""Penalties on a net's weights, added to the loss: how far its filters are from orthogonal, and l2."""

import logging
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cnnlab import conv
from cnnlab.allowed import number
from cnnlab.conv.precision import wide

log = logging.getLogger("cnnlab")

SHORTEST = 1e-12  # filters below this norm have no direction: their cosines fade to 0


def orthogonality_loss(weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Sum of squared cosines between different filters, each unordered pair counted twice.

    sum_{i != j} cos(m_i, m_j)^2 with m_i = [w_i; b_i], the flattened filter and its bias. It is 0 exactly
    where all filters are orthogonal, whatever their norms; a zero filter counts 0 and gets gradient 0.
    Filters of different groups see different channels: only their biases can correlate them.

    Source: Singla 2017, github.com/singlasahil14/orthogonal-convolution.
    Differs: a zero filter gives NaN there.
    Shape: weight (out, in/groups, kh, kw), bias (out,) -> scalar, float32 or wider

    >>> weight = torch.tensor([[3.0, 0.0], [1.0, 1.0]]).reshape(2, 2, 1, 1)
    >>> orthogonality_loss(weight)  # 45 degrees apart: 2 * (1 / sqrt(2))^2
    tensor(1.0000)
    >>> orthogonality_loss(weight, bias=torch.tensor([-3.0, 1.0]))  # 3*1 + 0*1 - 3*1 = 0
    tensor(0.)
    """
    with torch.autocast(weight.device.type, enabled=False):
        rows = wide(weight).flatten(1)  # (out, in/groups*kh*kw)
        gram = rows @ rows.T  # (out, out)
        if groups > 1:
            group = torch.arange(groups, device=weight.device).repeat_interleave(len(rows) // groups)
            gram = gram * (group == group.unsqueeze(1))
        if bias is not None:
            gram = torch.addr(gram, wide(bias), wide(bias))
        scale = gram.diagonal().clamp_min(SHORTEST**2).rsqrt()  # 1 / norm
        cosines = gram * scale * scale.unsqueeze(1)
        # The upper triangle, not everything less the diagonal: small losses would drown in the difference.
        return 2 * cosines.triu(1).square().sum()


def orthonormality_loss(matrix: Tensor) -> Tensor:
    """Squared Frobenius distance of M^T M from the identity: 0 exactly where the columns are orthonormal.

    Source: Singla 2017, github.com/singlasahil14/orthogonal-convolution (for recurrent matrices).
    Shape: (m, n) -> scalar, float32 or wider

    >>> orthonormality_loss(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))  # M^T M = [[1, 2], [2, 5]]: 4 + 4 + 16
    tensor(24.)
    """
    with torch.autocast(matrix.device.type, enabled=False):
        columns = wide(matrix)
        gram = columns.T @ columns
        return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


def orthogonality_floor(filters: int, dimension: int) -> float:
    """Least orthogonality loss of n nonzero filters in m dimensions, max(0, n^2/m - n).

    Above 0 where there are more filters than dimensions. Filters of one norm attain it where, as the columns
    of a matrix, they make its rows orthogonal: orthonormality of the transpose.

    Source: Welch 1974, "Lower bounds on the maximum cross correlation of signals".

    >>> orthogonality_floor(2, 3), orthogonality_floor(3, 2)  # three unit vectors at 120 degrees: 6 * 1/4
    (0.0, 1.5)
    """
    return max(0.0, filters**2 / dimension - filters)


class Penalties:
    """Weighted sum of the filters' orthogonality loss and of l2 on all weights.

    orthogonality * sum over convolutions of orthogonality_loss + l2 * 1/2 sum w^2. A convolution counts if
    its `weight` is one trainable parameter; l2 takes every trainable parameter of two or more dimensions, so
    biases and norms are exempt, and its gradient is l2 * w. A term whose weight is 0 is not computed.

    Raises: ValueError for a weight that is not a finite number >= 0.

    >>> net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False))
    >>> net[0].weight.data.fill_(1.0).shape
    torch.Size([2, 2, 1, 1])
    >>> Penalties(orthogonality=0.5, l2=0.25)(net)  # 0.5 * 2 + 0.25 * 4 / 2
    tensor(1.5000, grad_fn=<AddBackward0>)
    """

    def __init__(self, *, orthogonality: float = 0.0, l2: float = 0.0):
        for name, value in (("orthogonality", orthogonality), ("l2", l2)):
            if math.isinf(number(name, value, at_least=0)):
                raise ValueError(f"{name} must be finite, got inf; the hard constraint is conv=orthogonal")
        self.orthogonality, self.l2 = orthogonality, l2
        self.warned = False

    def __call__(self, net: nn.Module) -> Tensor | float:
        """The weighted penalty, differentiable; 0.0 where no term has a weight."""
        return sum((getattr(self, name) * value for name, value in self.terms(net).items()), 0.0)

    def terms(self, net: nn.Module) -> dict[str, Tensor]:
        """The unweighted value of each term that has a weight."""
        terms = {}
        if self.orthogonality:
            filters = trainable_filters(net)
            if not filters and not self.warned:
                log.warning("orthogonality: no convolution has a trainable weight of its own; the loss is 0")
                self.warned = True
            terms["orthogonality"] = _total(orthogonality_loss(*layer) for layer in filters)
        if self.l2:
            weights = (p for p in net.parameters() if p.requires_grad and p.dim() >= 2)
            terms["l2"] = _total(0.5 * wide(weight).square().sum() for weight in weights)
        return terms

    @torch.no_grad()
    def orthogonality_of(self, net: nn.Module) -> Tensor:
        """The unweighted orthogonality loss whatever its weight, for the log."""
        return _total(orthogonality_loss(*layer) for layer in trainable_filters(net))

    def orthogonality_floor_of(self, net: nn.Module) -> float:
        """What the orthogonality loss cannot fall below."""
        # The filters of all groups together live in in*kh*kw dimensions, and one more for the bias.
        return sum(
            orthogonality_floor(len(weight), groups * weight[0].numel() + (bias is not None))
            for weight, bias, groups in trainable_filters(net)
        )


def trainable_filters(net: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter | None, int]]:
    """Weight (out, in/groups, kh, kw), bias, groups of each convolution whose weight is a free parameter."""
    filters = []
    for layer in conv.layers(net).values():
        if hasattr(layer, "violation"):  # orthogonal by construction; its weight may only generate the kernel
            continue
        own = dict(layer.named_parameters(recurse=False))
        weight = own.get("weight")
        if weight is not None and weight.requires_grad and weight.dim() == 4:
            filters.append((weight, own.get("bias"), int(getattr(layer, "groups", 1))))
    return filters


def _total(values: Iterable[Tensor]) -> Tensor:
    return torch.as_tensor(sum(values, 0.0))
