"""Kernels orthonormal by construction: the parameters are the vectors of Householder reflections."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cnnlab.allowed import one_of, truth
from cnnlab.conv.geometry import PaddingMode, dense_macs
from cnnlab.conv.lipschitz import operator_norm
from cnnlab.conv.precision import full_precision, wide

BiasRow = Literal["last", "first"]


def householder_columns(vectors: Tensor) -> Tensor:
    """First n columns of H_1 H_2 ... H_n, H_i = I - 2 v_i v_i^T / |v_i|^2, for the n columns v_i.

    Compact WY form: E - V S^-1 V[:n]^T with V the normalised vectors, S = I/2 + striu(V^T V), E the first n
    columns of I: two products and a triangular solve instead of n products of m x m. Computed in float32 or
    higher, under autocast too. A zero vector stands for the identity.

    Source: Schreiber & Van Loan 1989; Likhosherstov et al. 2021, arXiv:2004.08675.
    Shape: (..., m, n) -> (..., m, n), m >= n.

    Raises: ValueError where m < n.

    >>> householder_columns(torch.tensor([[0.0, 3.0], [3.0, 0.0], [4.0, 4.0]]))
    tensor([[ 0.2800,  0.0000],
            [ 0.9216,  0.2800],
            [ 0.2688, -0.9600]])
    """
    m, n = vectors.shape[-2:]
    if m < n:
        raise ValueError(f"vectors must have at least as many rows as columns, got {m} x {n}")
    with full_precision(vectors):
        v = wide(vectors)
        norm = torch.linalg.vector_norm(v, dim=-2, keepdim=True)
        v = v / norm.masked_fill(norm == 0, math.inf)
        identity = torch.eye(m, n, dtype=v.dtype, device=v.device)
        s = (v.mT @ v).triu(1) + identity[:n] / 2
        return identity - v @ torch.linalg.solve_triangular(s, v[..., :n, :].mT, upper=True)


class OrthogonalConv2d(nn.Conv2d):
    """Convolution whose flattened kernel has orthonormal columns, by Householder reflections.

    Q = first n columns of H_1 H_2 ... H_n, n = out, is (kh*kw*in [+ 1 with a bias], n): the kernel's rows in
    the order (kh, kw, in), the bias as last or first row. v_i begins with n - i zeros; its other entries are
    parameters: one flat tensor, v_n first, drawn from U(-1, 1). Where out exceeds the rows, Q is transposed:
    its rows are orthonormal. Each group has a Q of its own.
    Orthonormal as a matrix: no patch is stretched. *Not* a norm-preserving operator on images: patches
    overlap, and `lipschitz` can reach sqrt(kh*kw) at stride 1. skew_orthogonal and cayley are orthogonal so.

    Source: Singla 2017, github.com/singlasahil14/orthogonal-convolution.
    Differs: the article's bias is the first row, its code's the last; the code also multiplies kernel and
    bias elementwise by trained scales (`trainable_scale`): then they are orthonormal at the start alone.
    Shape: (N, in, H, W) -> (N, out, H', W'), as nn.Conv2d.
    Raises: ValueError for bias_row=first without a bias.

    >>> conv = OrthogonalConv2d(1, 2, (1, 2), bias=False)
    >>> conv.free_entries.data = torch.tensor([3.0, 4.0, 1.0])  # v_2 = (3, 4), v_1 = (0, 1)
    >>> conv.weight.flatten(1).detach()  # its rows are Q's columns
    tensor([[ 0.2800,  0.9600],
            [-0.9600,  0.2800]])
    """

    linear = True
    equivariant = True
    is_convolution = True
    macs = dense_macs
    lipschitz = operator_norm
    tolerance = 1e-5  # of violation(), in float32

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        bias_row: BiasRow = "last",
        trainable_scale: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        )
        del self._parameters["weight"], self._parameters["bias"]  # the properties below take their places
        self.bias_row = one_of("bias_row", bias_row, get_args(BiasRow) if bias else ["last"])
        shape = out_channels, in_channels // groups, *self.kernel_size
        rows, columns = math.prod(shape[1:]) + bias, out_channels // groups
        self.has_bias = bias
        self.matrix_shape = rows, columns  # of each group's Q
        m, n = max(rows, columns), min(rows, columns)
        self.free_entries = nn.Parameter(torch.empty(groups * (n * m - n * (n - 1) // 2)))
        truth("trainable_scale", trainable_scale)
        self.weight_scale = nn.Parameter(torch.empty(shape)) if trainable_scale else None
        self.bias_scale = nn.Parameter(torch.empty(out_channels)) if trainable_scale and bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if "free_entries" not in self._parameters:  # nn.Conv2d's constructor calls this too early
            return
        nn.init.uniform_(self.free_entries, -1, 1)
        for scale in (self.weight_scale, self.bias_scale):
            if scale is not None:
                nn.init.ones_(scale)

    def _orthonormal(self) -> Tensor:
        """Q of every group: (groups, rows, columns)."""
        rows, columns = self.matrix_shape
        m, n = max(rows, columns), min(rows, columns)
        vector, entry = torch.triu_indices(
            n, m, device=self.free_entries.device
        )  # vectors counted from the last
        vectors = self.free_entries.new_zeros(self.groups, m * n)
        vectors = vectors.index_copy(1, entry * n + (n - 1 - vector), self.free_entries.view(self.groups, -1))
        q = householder_columns(vectors.view(self.groups, m, n))
        return q if rows >= columns else q.mT

    def _weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        q, bias = self._orthonormal().to(self.free_entries.dtype), None
        if self.has_bias:
            last = self.bias_row == "last"
            bias = q[:, -1 if last else 0].flatten()
            q = q[:, :-1] if last else q[:, 1:]
        weight = (
            q.unflatten(1, (*self.kernel_size, -1)).permute(0, 4, 3, 1, 2).flatten(0, 1)
        )  # (out, in, kh, kw)
        if self.weight_scale is not None:
            weight = weight * self.weight_scale
        if bias is not None and self.bias_scale is not None:
            bias = bias * self.bias_scale
        return weight, bias

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self._weight_and_bias()[0]

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        return self._weight_and_bias()[1]

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *self._weight_and_bias())

    @torch.no_grad()
    def violation(self) -> Tensor:
        """Largest deviation of Q^T Q from I (of Q Q^T, if Q is wide), Q as the forward pass uses it."""
        weight, bias = self._weight_and_bias()
        matrix = weight.flatten(1) if bias is None else torch.cat([weight.flatten(1), bias.unsqueeze(1)], 1)
        matrix = matrix.unflatten(0, (self.groups, -1))  # (groups, out / groups, rows)
        if matrix.shape[1] > matrix.shape[2]:
            matrix = matrix.mT
        with full_precision(matrix):
            matrix = wide(matrix)
            gram = matrix @ matrix.mT
            return (gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).abs().max()
