"""What keeps a net's weights small, sparse or apart: penalties on the loss, and a cap on each unit's norm."""

import logging
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from cnnlab import conv
from cnnlab.allowed import finite, number, truth
from cnnlab.conv.precision import full_precision, wide

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
    with full_precision(weight):
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
    with full_precision(matrix):
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
    """Penalties on the weights, added to the loss; and max_norm, dropconnect.

    orthogonality * sum over convolutions of orthogonality_loss + l2 * 1/2 sum w^2 + l1 * sum |w|. A
    convolution counts if its `weight` is one trainable parameter. l1 and l2 take every trainable parameter of
    two or more dimensions: biases and norms are exempt unless `biases`. l2 and l1 together are the elastic
    net. Their gradients are l2 * w and l1 * sign(w), so a step of plain gradient descent takes lr * l2 * w
    off every weight. A term whose weight is 0 is not computed.

    max_norm caps the length of each unit's incoming weights (a filter, a row of a dense layer):
    w <- w * min(1, max_norm / |w|) after every step; with `biases` each bias is clipped to it. dropconnect is
    the probability that training ignores a weight: cnnlab.dropconnect.

    Source: l1: Tibshirani 1996; both: Zou & Hastie 2005, Regularization and variable selection via the
    elastic net; max_norm: Srebro & Shraibman 2005, in nets Srivastava et al. 2014, Dropout, 5.1.
    Differs: the elastic net of Zou & Hastie has l2 * sum w^2, without the half.

    Raises: ValueError for a weight that is not a finite number >= 0, a max_norm not above 0 or a probability
    outside [0, 1).

    >>> net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False))
    >>> net[0].weight.data.fill_(1.0).shape
    torch.Size([2, 2, 1, 1])
    >>> Penalties(orthogonality=0.5, l2=0.25, l1=2.0)(net)  # 0.5 * 2 + 0.25 * 4 / 2 + 2 * 4
    tensor(9.5000, grad_fn=<AddBackward0>)
    >>> Penalties(max_norm=1.0).project(net)
    >>> net[0].weight.flatten().tolist()  # 1 / sqrt(1 + 1)
    [0.7071067690849304, 0.7071067690849304, 0.7071067690849304, 0.7071067690849304]
    """

    def __init__(
        self,
        *,
        orthogonality: float = 0.0,
        l2: float = 0.0,
        l1: float = 0.0,
        biases: bool = False,
        max_norm: float | None = None,
        dropconnect: float = 0.0,
    ):
        if math.isinf(number("orthogonality", orthogonality, at_least=0)):
            raise ValueError("orthogonality must be finite, got inf; the hard constraint is conv=orthogonal")
        self.orthogonality = orthogonality
        self.l2, self.l1 = finite("l2", l2, at_least=0), finite("l1", l1, at_least=0)
        self.biases = truth("biases", biases)
        self.max_norm = None if max_norm is None else finite("max_norm", max_norm, above=0)
        self.dropconnect = number("dropconnect", dropconnect, at_least=0, below=1)
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
            terms["l2"] = _total(0.5 * wide(weight).square().sum() for weight in self._penalized(net))
        if self.l1:
            terms["l1"] = _total(wide(weight).abs().sum() for weight in self._penalized(net))
        return terms

    def _penalized(self, net: nn.Module) -> Iterator[nn.Parameter]:
        """What l1 and l2 take."""
        return (p for p in net.parameters() if p.requires_grad and (p.dim() >= 2 or self.biases))

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Shorten what is longer than max_norm; due after every step."""
        if self.max_norm is None:
            return
        for _, layer, weight in free_weights(net):
            inputs = getattr(layer, "input_dims", range(1, weight.dim()))
            norm = torch.linalg.vector_norm(wide(weight), dim=tuple(inputs), keepdim=True)
            weight.mul_((self.max_norm / norm).clamp_max(1))  # a unit of zeros: min(1, inf)
        if self.biases:
            for bias in net.parameters():
                if bias.requires_grad and bias.dim() < 2:
                    bias.clamp_(-self.max_norm, self.max_norm)

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


def free_weights(net: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """The trainable weight that a layer has of its own: its name in the net, the layer, the weight.

    A weight has an input for each entry of a filter or row; norms have none.
    """
    for prefix, layer in net.named_modules():
        if hasattr(layer, "violation"):  # orthogonal by construction; its weight may only generate the kernel
            continue
        for name, parameter in layer.named_parameters(prefix, recurse=False):
            is_weight = name.rpartition(".")[2] in ("weight", "kernel") and parameter.dim() >= 2
            if is_weight and parameter.requires_grad:
                yield name, layer, parameter


def _total(values: Iterable[Tensor]) -> Tensor:
    return torch.as_tensor(sum(values, 0.0))
